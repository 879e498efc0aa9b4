// Package keyswitch is a thin client of Keyswitch: the generated stubs with a
// connection, a fold and errors that can be read.
//
//	client, err := keyswitch.Dial("127.0.0.1:8760", token, caPEM)
//	stream, err := client.Stream(ctx, call)
//	defer stream.Close()
//	for event, err := range stream.Events() {
//		...
//	}
//	answer, err := stream.Fold()
//
// The messages themselves are in the packages routerv1 and vaultv1 under gen.
package keyswitch
