// Command first streams one answer and says who paid.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	keyswitch "keyswitch.dev/go"
	routerv1 "keyswitch.dev/go/gen/router/v1"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ca, err := os.ReadFile(os.Getenv("KEYSWITCH_CA"))
	if err != nil {
		return err
	}
	client, err := dial(os.Getenv("KEYSWITCH_ROUTER"), ca)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stream, err := client.Stream(ctx, &routerv1.CompletionCall{
		RequestId: keyswitch.NewRequestID(),
		Spec: &routerv1.CompletionSpec{
			Model:    "practice/echo",
			Messages: []*routerv1.Message{keyswitch.System("Be brief."), keyswitch.User("Hello")},
		},
	})
	if err != nil {
		return err
	}
	defer stream.Close()
	for event, err := range stream.Events() {
		if err != nil {
			return err
		}
		fmt.Print(event.GetPartDelta().GetText().GetText())
	}
	answer, err := stream.Fold()
	if err != nil {
		return err
	}
	fmt.Printf("\n%s, paid by %s\n", answer.GetResolution().GetModel(), answer.GetResolution().GetPayer())
	return nil
}

// dial connects with the caller's certificate where there is one, else with its token.
func dial(target string, ca []byte) (*keyswitch.Client, error) {
	if certificate := os.Getenv("KEYSWITCH_CERT"); certificate != "" {
		return keyswitch.DialCertificate(target, keyswitch.CertificateFiles(certificate, os.Getenv("KEYSWITCH_KEY")), ca)
	}
	return keyswitch.Dial(target, os.Getenv("KEYSWITCH_TOKEN"), ca)
}
