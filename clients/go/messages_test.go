package keyswitch_test

import (
	"testing"

	keyswitch "keyswitch.dev/go"
	routerv1 "keyswitch.dev/go/gen/router/v1"
)

func TestBuildersMakeTheContractsMessages(t *testing.T) {
	roles := map[routerv1.Role]*routerv1.Message{
		routerv1.Role_ROLE_USER:      keyswitch.User("a"),
		routerv1.Role_ROLE_SYSTEM:    keyswitch.System("a"),
		routerv1.Role_ROLE_ASSISTANT: keyswitch.Assistant("a"),
	}
	for role, message := range roles {
		if message.GetRole() != role || keyswitch.Text(message) != "a" {
			t.Errorf("%v is %v", role, message)
		}
	}
	result := keyswitch.ToolResult("call-1", "sunny").GetParts()[0].GetToolResult()
	if result.GetToolCallId() != "call-1" || result.GetContent()[0].GetText().GetText() != "sunny" {
		t.Errorf("tool result %v", result)
	}
	function := keyswitch.Tool("get_time", "The time", `{}`).GetFunction()
	if function.GetName() != "get_time" || function.GetParametersJson() != "{}" {
		t.Errorf("tool %v", function)
	}
}
