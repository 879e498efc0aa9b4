package keyswitch

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	routerv1 "keyswitch.dev/go/gen/router/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// Fold is a completion as far as its events have told it. Events and parts of a
// kind that this version does not know keep their place and are skipped.
type Fold struct {
	sequence int64
	started  *routerv1.ResponseStarted
	ended    *routerv1.ResponseEnded
	parts    map[int32]*openPart
}

// openPart collects pieces to join them once.
type openPart struct {
	part *routerv1.Part
	text strings.Builder
	data bytes.Buffer
}

// NewFold is a completion of which nothing is known.
func NewFold() *Fold {
	return &Fold{parts: map[int32]*openPart{}}
}

// ResponseID is empty until response_started.
func (f *Fold) ResponseID() string {
	return f.started.GetResponseId()
}

// IsEnded tells whether response_ended came.
func (f *Fold) IsEnded() bool {
	return f.ended != nil
}

// Add takes the next event. A gap in the sequence is an error.
func (f *Fold) Add(event *routerv1.StreamEvent) error {
	if event.GetSequence() != f.sequence+1 {
		return f.broken(fmt.Sprintf("event %d came after event %d", event.GetSequence(), f.sequence))
	}
	f.sequence = event.GetSequence()
	switch kind := event.GetEvent().(type) {
	case *routerv1.StreamEvent_ResponseStarted:
		f.started = kind.ResponseStarted
	case *routerv1.StreamEvent_PartStarted:
		f.open(kind.PartStarted)
	case *routerv1.StreamEvent_PartDelta:
		return f.appendDelta(kind.PartDelta)
	case *routerv1.StreamEvent_PartEnded:
		return f.closePart(kind.PartEnded)
	case *routerv1.StreamEvent_ResponseEnded:
		f.ended = kind.ResponseEnded
	}
	return nil
}

// Message is what the model has said so far.
func (f *Fold) Message() *routerv1.Message {
	message := &routerv1.Message{Role: routerv1.Role_ROLE_ASSISTANT}
	indexes := make([]int32, 0, len(f.parts))
	for index := range f.parts {
		indexes = append(indexes, index)
	}
	slices.Sort(indexes)
	for _, index := range indexes {
		message.Parts = append(message.Parts, f.parts[index].build())
	}
	return message
}

// Answer is the whole answer, or an error when the stream has not ended.
func (f *Fold) Answer() (*routerv1.CompleteResponse, error) {
	if f.started == nil || f.ended == nil {
		return nil, f.broken("the stream has not ended: there is no whole answer")
	}
	return &routerv1.CompleteResponse{
		ResponseId:           f.started.GetResponseId(),
		Resolution:           f.started.GetResolution(),
		Warnings:             f.started.GetWarnings(),
		Message:              f.Message(),
		FinishReason:         f.ended.GetFinishReason(),
		ProviderFinishReason: f.ended.GetProviderFinishReason(),
		Receipt:              f.ended.GetReceipt(),
	}, nil
}

func (f *Fold) open(started *routerv1.PartStarted) {
	part := &routerv1.Part{}
	switch kind := started.GetKind().(type) {
	case *routerv1.PartStarted_Text:
		part.Kind = &routerv1.Part_Text{Text: &routerv1.TextPart{}}
	case *routerv1.PartStarted_Reasoning:
		part.Kind = &routerv1.Part_Reasoning{Reasoning: &routerv1.ReasoningPart{}}
	case *routerv1.PartStarted_ToolCall:
		call := &routerv1.ToolCallPart{Id: kind.ToolCall.GetId(), Name: kind.ToolCall.GetName()}
		part.Kind = &routerv1.Part_ToolCall{ToolCall: call}
	case *routerv1.PartStarted_Media:
		media := &routerv1.MediaPart{MediaType: kind.Media.GetMediaType(), Filename: kind.Media.GetFilename()}
		if uri := kind.Media.GetUri(); uri != "" {
			media.Source = &routerv1.MediaPart_Uri{Uri: uri}
		} else {
			media.Source = &routerv1.MediaPart_Data{}
		}
		part.Kind = &routerv1.Part_Media{Media: media}
	case *routerv1.PartStarted_Provider:
		block := &routerv1.ProviderPart{Dialect: kind.Provider.GetDialect(), Kind: kind.Provider.GetKind()}
		part.Kind = &routerv1.Part_Provider{Provider: block}
	}
	f.parts[started.GetIndex()] = &openPart{part: part}
}

func (f *Fold) appendDelta(delta *routerv1.PartDelta) error {
	open, err := f.find(delta.GetIndex())
	if err != nil {
		return err
	}
	switch kind := delta.GetDelta().(type) {
	case *routerv1.PartDelta_Text:
		open.text.WriteString(kind.Text.GetText())
	case *routerv1.PartDelta_Reasoning:
		open.text.WriteString(kind.Reasoning.GetText())
	case *routerv1.PartDelta_Arguments:
		open.text.WriteString(kind.Arguments.GetJson())
	case *routerv1.PartDelta_Provider:
		open.text.WriteString(kind.Provider.GetJson())
	case *routerv1.PartDelta_Media:
		open.data.Write(kind.Media.GetData())
	case *routerv1.PartDelta_Citation:
		if text := open.part.GetText(); text != nil {
			text.Citations = append(text.Citations, kind.Citation.GetCitation())
		}
	}
	return nil
}

func (f *Fold) closePart(ended *routerv1.PartEnded) error {
	open, err := f.find(ended.GetIndex())
	if err != nil {
		return err
	}
	open.part.ProviderState = ended.GetProviderState()
	return nil
}

func (f *Fold) find(index int32) (*openPart, error) {
	open, ok := f.parts[index]
	if !ok {
		return nil, f.broken(fmt.Sprintf("part %d was never started", index))
	}
	return open, nil
}

func (f *Fold) broken(what string) *Error {
	return &Error{Code: codes.DataLoss, Message: what, ResponseID: f.ResponseID()}
}

func (o *openPart) build() *routerv1.Part {
	part := proto.CloneOf(o.part)
	switch kind := part.GetKind().(type) {
	case *routerv1.Part_Text:
		kind.Text.Text = o.text.String()
	case *routerv1.Part_Reasoning:
		kind.Reasoning.Text = o.text.String()
	case *routerv1.Part_ToolCall:
		kind.ToolCall.ArgumentsJson = o.text.String()
	case *routerv1.Part_Provider:
		kind.Provider.Json = o.text.String()
	case *routerv1.Part_Media:
		if o.data.Len() > 0 {
			kind.Media.Source = &routerv1.MediaPart_Data{Data: bytes.Clone(o.data.Bytes())}
		}
	}
	return part
}
