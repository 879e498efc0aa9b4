package keyswitch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	routerv1 "keyswitch.dev/go/gen/router/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// Above the contract's 32 MiB, so that a message that is too large is refused by
// the service, with a reason.
const maxMessageBytes = 33 << 20

// Client is a connection to one of the services. Methods beyond completions are
// called through the generated stubs on Conn; Wrap reads their errors.
type Client struct {
	conn        *grpc.ClientConn
	completions routerv1.CompletionServiceClient
}

// Dial prepares a connection; it is opened by the first call. An empty caPEM means
// the authorities of the system. An empty token means no identity.
func Dial(target, token string, caPEM []byte, options ...grpc.DialOption) (*Client, error) {
	config, err := tlsConfig(caPEM)
	if err != nil {
		return nil, err
	}
	if token != "" {
		options = append([]grpc.DialOption{grpc.WithPerRPCCredentials(bearer(token))}, options...)
	}
	return dial(target, config, options)
}

// DialCertificate prepares a connection of a caller that has a certificate in place
// of a token. The services listen for such callers on addresses of their own.
func DialCertificate(
	target string, certificates Certificates, caPEM []byte, options ...grpc.DialOption,
) (*Client, error) {
	config, err := tlsConfig(caPEM)
	if err != nil {
		return nil, err
	}
	proofs := &prover{certificates: certificates, now: time.Now}
	config.GetClientCertificate = proofs.certificate
	return dial(target, config, append([]grpc.DialOption{grpc.WithPerRPCCredentials(proofs)}, options...))
}

func tlsConfig(caPEM []byte) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(caPEM) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(caPEM) {
			return nil, errors.New("keyswitch: the CA holds no PEM certificate")
		}
	}
	return config, nil
}

func dial(target string, config *tls.Config, options []grpc.DialOption) (*Client, error) {
	all := []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessageBytes),
			grpc.MaxCallSendMsgSize(maxMessageBytes),
		),
		// Only the caller knows whether a completion may be billed twice.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
	}
	conn, err := grpc.NewClient(target, append(all, options...)...)
	if err != nil {
		return nil, Wrap(err)
	}
	return &Client{conn: conn, completions: routerv1.NewCompletionServiceClient(conn)}, nil
}

// Conn is the connection, for the generated stubs: they need nothing else, the
// token travels with every call.
func (c *Client) Conn() *grpc.ClientConn {
	return c.conn
}

// Close ends the connection and every call on it.
func (c *Client) Close() error {
	return c.conn.Close()
}

// Complete gives the whole answer at once. The deadline of ctx bounds everything:
// waiting, retries and all attempts.
func (c *Client) Complete(ctx context.Context, call *routerv1.CompletionCall) (*routerv1.CompleteResponse, error) {
	answer, err := c.completions.Complete(ctx, &routerv1.CompleteRequest{Call: call})
	if err != nil {
		return nil, Wrap(err)
	}
	return answer, nil
}

// Stream gives the answer as it comes. The caller must Close the stream, or cancel
// ctx: a stream that is merely dropped is never ended.
func (c *Client) Stream(ctx context.Context, call *routerv1.CompletionCall) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	receiver, err := c.completions.StreamComplete(ctx, &routerv1.StreamCompleteRequest{Call: call})
	if err != nil {
		cancel()
		return nil, Wrap(err)
	}
	return &Stream{receiver: receiver, cancel: cancel, fold: NewFold()}, nil
}

// bearer is a caller's token. It goes over TLS only.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool {
	return true
}

// String keeps the token out of whatever prints the options of a connection.
func (bearer) String() string {
	return "bearer token"
}

// GoString is String, for %#v.
func (bearer) GoString() string {
	return "bearer token"
}
