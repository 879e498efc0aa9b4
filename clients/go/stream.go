package keyswitch

import (
	"context"
	"errors"
	"io"
	"iter"

	routerv1 "keyswitch.dev/go/gen/router/v1"

	"google.golang.org/grpc"
)

// Stream is a completion as it comes. One goroutine reads it; any may Close it.
type Stream struct {
	receiver grpc.ServerStreamingClient[routerv1.StreamCompleteResponse]
	cancel   context.CancelFunc
	fold     *Fold
	waiting  []*routerv1.StreamEvent
	err      error
}

// Next gives the next event, and io.EOF after response_ended. Every other end is
// an *Error, also one in good order without response_ended: the answer was cut.
func (s *Stream) Next() (*routerv1.StreamEvent, error) {
	for s.err == nil && len(s.waiting) == 0 {
		s.receive()
	}
	if s.err != nil {
		return nil, s.err
	}
	event := s.waiting[0]
	s.waiting = s.waiting[1:]
	if err := s.fold.Add(event); err != nil {
		s.err = err
		return nil, err
	}
	return event, nil
}

// Events gives the events from here on. The loop ends after response_ended, or
// after one round with an error.
func (s *Stream) Events() iter.Seq2[*routerv1.StreamEvent, error] {
	return func(yield func(*routerv1.StreamEvent, error) bool) {
		for {
			event, err := s.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// Fold reads what is left and gives the whole answer: exactly what Complete would
// have given.
func (s *Stream) Fold() (*routerv1.CompleteResponse, error) {
	for _, err := range s.Events() {
		if err != nil {
			return nil, err
		}
	}
	return s.fold.Answer()
}

// ResponseID is the router's id of the call; empty until response_started.
func (s *Stream) ResponseID() string {
	return s.fold.ResponseID()
}

// Close ends the call, and with it what the provider does. Harmless after the end.
func (s *Stream) Close() {
	s.cancel()
}

func (s *Stream) receive() {
	message, err := s.receiver.Recv()
	switch {
	case err == nil:
		s.waiting = message.GetEvents()
	case !errors.Is(err, io.EOF):
		s.err = s.withResponseID(Wrap(err))
	case !s.fold.IsEnded():
		s.err = s.fold.broken("the stream closed without response_ended: the answer was cut")
	default:
		s.err = io.EOF
	}
	if s.err != nil {
		s.cancel()
	}
}

func (s *Stream) withResponseID(err error) error {
	var failure *Error
	if !errors.As(err, &failure) || failure.ResponseID != "" {
		return err
	}
	failure.ResponseID = s.fold.ResponseID()
	if header, headerErr := s.receiver.Header(); headerErr == nil && failure.ResponseID == "" {
		for _, id := range header.Get(responseIDKey) {
			failure.ResponseID = id
		}
	}
	return err
}
