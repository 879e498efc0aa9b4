package keyswitch

import (
	"crypto/rand"
	"fmt"

	routerv1 "keyswitch.dev/go/gen/router/v1"
)

// User is a turn of the end user.
func User(text string) *routerv1.Message {
	return textMessage(routerv1.Role_ROLE_USER, text)
}

// System is standing instructions.
func System(text string) *routerv1.Message {
	return textMessage(routerv1.Role_ROLE_SYSTEM, text)
}

// Assistant is a turn of the model, written by hand. An answer's own message goes
// back as it is, and should.
func Assistant(text string) *routerv1.Message {
	return textMessage(routerv1.Role_ROLE_ASSISTANT, text)
}

// ToolResult is what a tool answered to a call.
func ToolResult(toolCallID, text string) *routerv1.Message {
	content := &routerv1.ToolResultContent{
		Kind: &routerv1.ToolResultContent_Text{Text: &routerv1.TextPart{Text: text}},
	}
	result := &routerv1.ToolResultPart{ToolCallId: toolCallID, Content: []*routerv1.ToolResultContent{content}}
	part := &routerv1.Part{Kind: &routerv1.Part_ToolResult{ToolResult: result}}
	return &routerv1.Message{Role: routerv1.Role_ROLE_TOOL, Parts: []*routerv1.Part{part}}
}

// Tool is a tool that the caller runs; parametersJSON is the JSON Schema of its
// arguments, empty for none.
func Tool(name, description, parametersJSON string) *routerv1.Tool {
	function := &routerv1.FunctionTool{Name: name, Description: description, ParametersJson: parametersJSON}
	return &routerv1.Tool{Kind: &routerv1.Tool_Function{Function: function}}
}

// Text is all text of a message, without its reasoning.
func Text(message *routerv1.Message) string {
	text := ""
	for _, part := range message.GetParts() {
		text += part.GetText().GetText()
	}
	return text
}

// NewRequestID is a random UUID4 for CompletionCall.request_id, which makes
// repeating a call safe.
func NewRequestID() string {
	var id [16]byte
	rand.Read(id[:])
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16])
}

func textMessage(role routerv1.Role, text string) *routerv1.Message {
	part := &routerv1.Part{Kind: &routerv1.Part_Text{Text: &routerv1.TextPart{Text: text}}}
	return &routerv1.Message{Role: role, Parts: []*routerv1.Part{part}}
}
