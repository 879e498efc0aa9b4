package keyswitch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	keyswitch "keyswitch.dev/go"
	routerv1 "keyswitch.dev/go/gen/router/v1"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// scripted is a service that answers what the model's name stands for.
type scripted struct {
	routerv1.UnimplementedCompletionServiceServer

	left chan struct{}
}

func (s *scripted) Complete(
	_ context.Context, request *routerv1.CompleteRequest,
) (*routerv1.CompleteResponse, error) {
	message := keyswitch.Assistant("Hello")
	return &routerv1.CompleteResponse{
		ResponseId:   "r",
		Resolution:   &routerv1.Resolution{Model: request.GetCall().GetSpec().GetModel()},
		Message:      message,
		FinishReason: routerv1.FinishReason_FINISH_REASON_STOP,
	}, nil
}

func (s *scripted) StreamComplete(
	request *routerv1.StreamCompleteRequest, stream grpc.ServerStreamingServer[routerv1.StreamCompleteResponse],
) error {
	if err := stream.SendHeader(metadata.Pairs("keyswitch-response-id", "r")); err != nil {
		return err
	}
	model := request.GetCall().GetSpec().GetModel()
	if model == "refused" {
		return refusal()
	}
	if err := stream.Send(&routerv1.StreamCompleteResponse{Events: helloEvents(model)}); err != nil {
		return err
	}
	switch model {
	case "stall":
		<-stream.Context().Done()
		close(s.left)
		return stream.Context().Err()
	case "cut":
		return nil
	}
	return stream.Send(&routerv1.StreamCompleteResponse{Events: endEvents()})
}

func refusal() error {
	made, err := status.New(codes.ResourceExhausted, "try later").WithDetails(
		&errdetails.ErrorInfo{
			Reason:   "ERROR_REASON_UPSTREAM_RATE_LIMITED",
			Domain:   "router.keyswitch.dev",
			Metadata: map[string]string{"committed": "true"},
		},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(2 * time.Second)},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "call.spec"}}},
		&routerv1.Receipt{ResponseId: "r", SkippedCandidateCount: 3},
	)
	if err != nil {
		return err
	}
	return made.Err()
}

func helloEvents(model string) []*routerv1.StreamEvent {
	started := &routerv1.ResponseStarted{ResponseId: "r", Resolution: &routerv1.Resolution{Model: model}}
	part := &routerv1.PartStarted{Kind: &routerv1.PartStarted_Text{Text: &routerv1.TextStart{}}}
	return []*routerv1.StreamEvent{
		{Sequence: 1, Event: &routerv1.StreamEvent_ResponseStarted{ResponseStarted: started}},
		{Sequence: 2, Event: &routerv1.StreamEvent_PartStarted{PartStarted: part}},
		{Sequence: 3, Event: textDelta("Hel")},
		{Sequence: 4, Event: textDelta("lo")},
	}
}

func endEvents() []*routerv1.StreamEvent {
	ended := &routerv1.ResponseEnded{FinishReason: routerv1.FinishReason_FINISH_REASON_STOP}
	return []*routerv1.StreamEvent{
		{Sequence: 5, Event: &routerv1.StreamEvent_PartEnded{PartEnded: &routerv1.PartEnded{}}},
		{Sequence: 6, Event: &routerv1.StreamEvent_ResponseEnded{ResponseEnded: ended}},
	}
}

func textDelta(text string) *routerv1.StreamEvent_PartDelta {
	delta := &routerv1.PartDelta_Text{Text: &routerv1.TextDelta{Text: text}}
	return &routerv1.StreamEvent_PartDelta{PartDelta: &routerv1.PartDelta{Delta: delta}}
}

func connect(t *testing.T) (*keyswitch.Client, *scripted) {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	service := &scripted{left: make(chan struct{})}
	routerv1.RegisterCompletionServiceServer(server, service)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	dialer := func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }
	client, err := keyswitch.Dial("passthrough:///scripted", "", nil,
		grpc.WithContextDialer(dialer), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client, service
}

func callFor(model string) *routerv1.CompletionCall {
	spec := &routerv1.CompletionSpec{Model: model, Messages: []*routerv1.Message{keyswitch.User("Hi")}}
	return &routerv1.CompletionCall{Spec: spec, RequestId: keyswitch.NewRequestID()}
}

func TestFoldOfAStreamIsTheUnaryAnswer(t *testing.T) {
	client, _ := connect(t)
	stream, err := client.Stream(t.Context(), callFor("hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	folded, err := stream.Fold()
	if err != nil {
		t.Fatal(err)
	}
	unary, err := client.Complete(t.Context(), callFor("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(folded, unary) {
		t.Errorf("folded %v, unary %v", folded, unary)
	}
	if keyswitch.Text(folded.GetMessage()) != "Hello" || stream.ResponseID() != "r" {
		t.Errorf("folded %v", folded)
	}
	if _, err := stream.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

func TestErrorCarriesReasonReceiptAndDelay(t *testing.T) {
	client, _ := connect(t)
	stream, err := client.Stream(t.Context(), callFor("refused"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	_, err = stream.Fold()
	var failure *keyswitch.Error
	if !errors.As(err, &failure) {
		t.Fatalf("not an Error: %v", err)
	}
	if failure.Code != codes.ResourceExhausted || failure.Reason != "ERROR_REASON_UPSTREAM_RATE_LIMITED" ||
		failure.Domain != "router.keyswitch.dev" || !failure.IsCommitted() {
		t.Errorf("%+v", failure)
	}
	if failure.RetryDelay == nil || *failure.RetryDelay != 2*time.Second {
		t.Errorf("retry delay %v", failure.RetryDelay)
	}
	if failure.Receipt.GetSkippedCandidateCount() != 3 || failure.ResponseID != "r" {
		t.Errorf("receipt %v", failure.Receipt)
	}
	if len(failure.FieldViolations) != 1 || failure.FieldViolations[0].Field != "call.spec" {
		t.Errorf("violations %v", failure.FieldViolations)
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("gRPC's own error is lost: %v", err)
	}
}

func TestCloseCancelsTheCall(t *testing.T) {
	client, service := connect(t)
	stream, err := client.Stream(t.Context(), callFor("stall"))
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if _, err := stream.Next(); err != nil {
			t.Fatal(err)
		}
	}
	stream.Close()
	<-service.left
	if _, err := stream.Fold(); !errors.Is(err, context.Canceled) {
		t.Errorf("after Close: %v", err)
	}
}

func TestDeadlineIsTheContexts(t *testing.T) {
	client, service := connect(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	stream, err := client.Stream(ctx, callFor("stall"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	_, err = stream.Fold()
	var failure *keyswitch.Error
	if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &failure) || failure.ResponseID != "r" {
		t.Errorf("after the deadline: %v", err)
	}
	<-service.left
}

func TestCutStreamIsAnError(t *testing.T) {
	client, _ := connect(t)
	stream, err := client.Stream(t.Context(), callFor("cut"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	_, err = stream.Fold()
	var failure *keyswitch.Error
	if !errors.As(err, &failure) || failure.Code != codes.DataLoss || failure.ResponseID != "r" {
		t.Errorf("a cut stream gave %v", err)
	}
}

func TestLeavingTheLoopKeepsTheRest(t *testing.T) {
	client, _ := connect(t)
	stream, err := client.Stream(t.Context(), callFor("hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for event, err := range stream.Events() {
		if err != nil {
			t.Fatal(err)
		}
		if event.GetSequence() == 3 {
			break
		}
	}
	next, err := stream.Next()
	if err != nil || next.GetSequence() != 4 {
		t.Errorf("next event %v, %v", next, err)
	}
}

func TestTokenIsNeverSentWithoutTLS(t *testing.T) {
	_, err := keyswitch.Dial("passthrough:///nowhere", "secret-of-ada", nil,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		t.Fatal("a token over plain text was accepted")
	}
	if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, "secret-of-ada") {
		t.Errorf("the error tells the token: %s", text)
	}
}

func TestCAWithoutCertificateIsRefused(t *testing.T) {
	if _, err := keyswitch.Dial("127.0.0.1:1", "", []byte("not PEM")); err == nil {
		t.Fatal("garbage was accepted as a CA")
	}
}
