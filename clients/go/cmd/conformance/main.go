// Command conformance runs one conformance case: the case as JSON on stdin, its
// result as JSON on stdout. The form of both documents is in clients/README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	keyswitch "keyswitch.dev/go"
	routerv1 "keyswitch.dev/go/gen/router/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
)

type job struct {
	Target string `json:"target"`
	CAPath string `json:"ca_path"`
	Token  string `json:"token"`
	Case   struct {
		Call              json.RawMessage `json:"call"`
		CancelAfterEvents int             `json:"cancel_after_events"`
	} `json:"case"`
}

type result struct {
	Outcome         string            `json:"outcome"`
	EventCount      int               `json:"event_count"`
	ResponseID      string            `json:"response_id"`
	Folded          json.RawMessage   `json:"folded,omitempty"`
	Unary           json.RawMessage   `json:"unary,omitempty"`
	Code            string            `json:"code,omitempty"`
	Reason          string            `json:"reason"`
	Domain          string            `json:"domain"`
	Metadata        map[string]string `json:"metadata"`
	FieldViolations []string          `json:"field_violations"`
	Receipt         json.RawMessage   `json:"receipt,omitempty"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(source io.Reader, sink io.Writer) error {
	var task job
	if err := json.NewDecoder(source).Decode(&task); err != nil {
		return err
	}
	call := &routerv1.CompletionCall{}
	if err := protojson.Unmarshal(task.Case.Call, call); err != nil {
		return err
	}
	ca, err := os.ReadFile(task.CAPath)
	if err != nil {
		return err
	}
	client, err := keyswitch.Dial(task.Target, task.Token, ca)
	if err != nil {
		return err
	}
	defer client.Close()
	outcome, err := complete(context.Background(), client, call, task.Case.CancelAfterEvents)
	if err != nil {
		return err
	}
	return json.NewEncoder(sink).Encode(outcome)
}

func complete(
	ctx context.Context, client *keyswitch.Client, call *routerv1.CompletionCall, cancelAfter int,
) (*result, error) {
	stream, err := client.Stream(ctx, call)
	if err != nil {
		return failed(err, 0, "")
	}
	defer stream.Close()
	count := 0
	for _, err := range stream.Events() {
		if err != nil {
			return failed(err, count, stream.ResponseID())
		}
		count++
		if count == cancelAfter {
			stream.Close()
		}
	}
	folded, err := stream.Fold()
	if err != nil {
		return failed(err, count, stream.ResponseID())
	}
	unary, err := client.Complete(ctx, call)
	if err != nil {
		return failed(err, count, "")
	}
	outcome := &result{Outcome: "answered", EventCount: count, ResponseID: stream.ResponseID()}
	if outcome.Folded, err = protojson.Marshal(folded); err != nil {
		return nil, err
	}
	outcome.Unary, err = protojson.Marshal(unary)
	return outcome, err
}

func failed(err error, count int, responseID string) (*result, error) {
	var failure *keyswitch.Error
	if !errors.As(err, &failure) {
		return nil, err
	}
	outcome := &result{
		Outcome:    "failed",
		EventCount: count,
		ResponseID: responseID,
		Code:       codeName(failure.Code),
		Reason:     failure.Reason,
		Domain:     failure.Domain,
		Metadata:   failure.Metadata,
	}
	if errors.Is(err, context.Canceled) {
		outcome.Outcome = "cancelled"
	}
	if outcome.ResponseID == "" {
		outcome.ResponseID = failure.ResponseID
	}
	for _, violation := range failure.FieldViolations {
		outcome.FieldViolations = append(outcome.FieldViolations, violation.Field)
	}
	if failure.Receipt == nil {
		return outcome, nil
	}
	var marshalErr error
	outcome.Receipt, marshalErr = protojson.Marshal(failure.Receipt)
	return outcome, marshalErr
}

// codeName is the code as the contract writes it: FAILED_PRECONDITION, where Go
// says FailedPrecondition.
func codeName(code codes.Code) string {
	if code == codes.Canceled {
		return "CANCELLED"
	}
	var name strings.Builder
	for index, letter := range code.String() {
		if index > 0 && letter >= 'A' && letter <= 'Z' && code != codes.OK {
			name.WriteByte('_')
		}
		name.WriteRune(letter)
	}
	return strings.ToUpper(name.String())
}
