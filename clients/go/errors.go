package keyswitch

import (
	"context"
	"fmt"
	"time"

	routerv1 "keyswitch.dev/go/gen/router/v1"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const responseIDKey = "keyswitch-response-id"

// FieldViolation is a field of the request that is wrong, and what is wrong.
type FieldViolation struct {
	Field       string
	Description string
}

// Error is a call that failed.
//
// An empty Reason means that no service wrote the status: gRPC made it (no
// connection, the caller's own deadline, an oversize message), or the stream broke
// the contract, which is codes.DataLoss.
type Error struct {
	Code    codes.Code
	Message string
	// Reason is the contract's ErrorReason by its whole name.
	Reason          string
	Domain          string
	Metadata        map[string]string
	FieldViolations []FieldViolation
	// RetryDelay is nil when the service did not say when to try again.
	RetryDelay *time.Duration
	// Receipt is nil when nothing was attempted and nothing was skipped.
	Receipt    *routerv1.Receipt
	ResponseID string

	cause error
}

// Error is the code, the reason and the sentence.
func (e *Error) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("keyswitch: %s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("keyswitch: %s %s: %s", e.Code, e.Reason, e.Message)
}

// Unwrap gives gRPC's own error, so that status.FromError works on this one.
func (e *Error) Unwrap() error {
	return e.cause
}

// Is makes errors.Is work with the context's own two errors.
func (e *Error) Is(target error) bool {
	switch target {
	case context.Canceled:
		return e.Code == codes.Canceled && e.Reason == ""
	case context.DeadlineExceeded:
		return e.Code == codes.DeadlineExceeded
	default:
		return false
	}
}

// IsCommitted tells whether a part of an answer had been delivered, which is
// billed: repeating the call pays twice.
func (e *Error) IsCommitted() bool {
	return e.Metadata["committed"] == "true"
}

// Wrap reads the error of any generated stub. Nil stays nil.
func Wrap(err error) error {
	if err == nil {
		return nil
	}
	made := status.Convert(err)
	failure := &Error{Code: made.Code(), Message: made.Message(), cause: err}
	for _, detail := range made.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			failure.Reason = detail.GetReason()
			failure.Domain = detail.GetDomain()
			failure.Metadata = detail.GetMetadata()
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				field := FieldViolation{Field: violation.GetField(), Description: violation.GetDescription()}
				failure.FieldViolations = append(failure.FieldViolations, field)
			}
		case *errdetails.RetryInfo:
			delay := detail.GetRetryDelay().AsDuration()
			failure.RetryDelay = &delay
		case *routerv1.Receipt:
			failure.Receipt = detail
			failure.ResponseID = detail.GetResponseId()
		}
	}
	return failure
}
