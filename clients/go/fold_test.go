package keyswitch_test

import (
	"errors"
	"regexp"
	"testing"

	keyswitch "keyswitch.dev/go"
	routerv1 "keyswitch.dev/go/gen/router/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

type kind = routerv1.PartStarted

func start(index int32, started *kind) *routerv1.StreamEvent {
	started.Index = index
	return &routerv1.StreamEvent{Event: &routerv1.StreamEvent_PartStarted{PartStarted: started}}
}

func more(index int32, delta *routerv1.PartDelta) *routerv1.StreamEvent {
	delta.Index = index
	return &routerv1.StreamEvent{Event: &routerv1.StreamEvent_PartDelta{PartDelta: delta}}
}

func TestFoldBuildsEveryKindOfPart(t *testing.T) {
	citation := &routerv1.Citation{Uri: "https://example.com"}
	state := &routerv1.ProviderState{Dialect: "openai_chat", Data: []byte{0, 255}}
	call := &routerv1.ToolCallStart{Id: "call-1", Name: "get_time"}
	png := &routerv1.MediaStart{MediaType: "image/png"}
	linked := &routerv1.MediaStart{MediaType: "image/png", Uri: "https://example.com/a.png"}
	block := &routerv1.ProviderStart{Dialect: "anthropic_messages", Kind: "web_search_tool_result"}
	arguments := func(json string) *routerv1.PartDelta {
		return &routerv1.PartDelta{Delta: &routerv1.PartDelta_Arguments{Arguments: &routerv1.ArgumentsDelta{Json: json}}}
	}
	started := &routerv1.ResponseStarted{ResponseId: "r"}
	closed := &routerv1.PartEnded{Index: 2, ProviderState: state}
	ended := &routerv1.ResponseEnded{FinishReason: routerv1.FinishReason_FINISH_REASON_STOP}
	events := []*routerv1.StreamEvent{
		{Event: &routerv1.StreamEvent_ResponseStarted{ResponseStarted: started}},
		start(0, &kind{Kind: &routerv1.PartStarted_Reasoning{Reasoning: &routerv1.ReasoningStart{}}}),
		start(1, &kind{Kind: &routerv1.PartStarted_Text{Text: &routerv1.TextStart{}}}),
		start(2, &kind{Kind: &routerv1.PartStarted_ToolCall{ToolCall: call}}),
		more(0, &routerv1.PartDelta{Delta: &routerv1.PartDelta_Reasoning{Reasoning: &routerv1.ReasoningDelta{Text: "hm"}}}),
		more(2, arguments(`{"a`)),
		more(1, &routerv1.PartDelta{Delta: &routerv1.PartDelta_Text{Text: &routerv1.TextDelta{Text: "Hello"}}}),
		more(2, arguments(`":1}`)),
		more(1, &routerv1.PartDelta{Delta: &routerv1.PartDelta_Citation{Citation: &routerv1.CitationDelta{Citation: citation}}}),
		start(3, &kind{Kind: &routerv1.PartStarted_Media{Media: png}}),
		more(3, &routerv1.PartDelta{Delta: &routerv1.PartDelta_Media{Media: &routerv1.MediaDelta{Data: []byte{1, 2}}}}),
		start(4, &kind{Kind: &routerv1.PartStarted_Media{Media: linked}}),
		start(5, &kind{Kind: &routerv1.PartStarted_Provider{Provider: block}}),
		more(5, &routerv1.PartDelta{Delta: &routerv1.PartDelta_Provider{Provider: &routerv1.ProviderDelta{Json: "{}"}}}),
		start(6, &kind{}),
		{},
		{Event: &routerv1.StreamEvent_PartEnded{PartEnded: closed}},
		{Event: &routerv1.StreamEvent_ResponseEnded{ResponseEnded: ended}},
	}
	fold := keyswitch.NewFold()
	for index, event := range events {
		event.Sequence = int64(index + 1)
		if err := fold.Add(event); err != nil {
			t.Fatal(err)
		}
	}
	answer, err := fold.Answer()
	if err != nil {
		t.Fatal(err)
	}
	text := &routerv1.TextPart{Text: "Hello", Citations: []*routerv1.Citation{citation}}
	tool := &routerv1.ToolCallPart{Id: "call-1", Name: "get_time", ArgumentsJson: `{"a":1}`}
	data := &routerv1.MediaPart{MediaType: "image/png", Source: &routerv1.MediaPart_Data{Data: []byte{1, 2}}}
	uri := &routerv1.MediaPart{MediaType: "image/png", Source: &routerv1.MediaPart_Uri{Uri: linked.GetUri()}}
	own := &routerv1.ProviderPart{Dialect: block.GetDialect(), Kind: block.GetKind(), Json: "{}"}
	want := &routerv1.Message{Role: routerv1.Role_ROLE_ASSISTANT, Parts: []*routerv1.Part{
		{Kind: &routerv1.Part_Reasoning{Reasoning: &routerv1.ReasoningPart{Text: "hm"}}},
		{Kind: &routerv1.Part_Text{Text: text}},
		{Kind: &routerv1.Part_ToolCall{ToolCall: tool}, ProviderState: state},
		{Kind: &routerv1.Part_Media{Media: data}},
		{Kind: &routerv1.Part_Media{Media: uri}},
		{Kind: &routerv1.Part_Provider{Provider: own}},
		{},
	}}
	if !proto.Equal(answer.GetMessage(), want) {
		t.Errorf("got %v\nwant %v", answer.GetMessage(), want)
	}
}

func TestFoldRefusesWhatBreaksTheContract(t *testing.T) {
	lost := more(4, &routerv1.PartDelta{Delta: &routerv1.PartDelta_Text{Text: &routerv1.TextDelta{Text: "x"}}})
	lost.Sequence = 1
	var failure *keyswitch.Error
	if err := keyswitch.NewFold().Add(lost); !errors.As(err, &failure) || failure.Code != codes.DataLoss {
		t.Errorf("a delta without a start: %v", err)
	}
	if err := keyswitch.NewFold().Add(&routerv1.StreamEvent{Sequence: 2}); err == nil {
		t.Error("a gap was accepted")
	}
	if _, err := keyswitch.NewFold().Answer(); err == nil {
		t.Error("an answer without an end was given")
	}
}

func TestRequestIDIsAUUID4(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	first, second := keyswitch.NewRequestID(), keyswitch.NewRequestID()
	if !form.MatchString(first) || first == second {
		t.Errorf("request ids %q and %q", first, second)
	}
}
