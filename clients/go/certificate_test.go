package keyswitch

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"
)

func pair(t *testing.T, key crypto.Signer, names ...string) *tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "caller"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Now().Add(time.Hour),
	}
	for _, name := range names {
		parsed, err := url.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, parsed)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func part(t *testing.T, text string) map[string]any {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	var found map[string]any
	if err := json.Unmarshal(raw, &found); err != nil {
		t.Fatal(err)
	}
	return found
}

func verifies(public crypto.PublicKey, text, signature []byte) bool {
	short, long := sha256.Sum256(text), sha512.Sum384(text)
	half := len(signature) / 2
	switch public := public.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(public, text, signature)
	case *ecdsa.PublicKey:
		digest := short[:]
		if public.Curve == elliptic.P384() {
			digest = long[:]
		}
		r, s := new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
		return ecdsa.Verify(public, digest, r, s)
	case *rsa.PublicKey:
		options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		return rsa.VerifyPSS(public, crypto.SHA256, short[:], signature, options) == nil
	}
	return false
}

func TestProofsOfEachKindOfKey(t *testing.T) {
	small, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	large, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	old, _ := rsa.GenerateKey(rand.Reader, 2048)
	for algorithm, key := range map[string]crypto.Signer{"ES256": small, "ES384": large, "EdDSA": edwards, "PS256": old} {
		now := time.Unix(1_800_000_000, 0)
		made := pair(t, key, "spiffe://callers.example/chat")
		proof, err := sign(made, now)
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(proof, ".")
		header, claims := part(t, parts[0]), part(t, parts[1])
		if header["alg"] != algorithm || header["typ"] != "keyswitch-proof+jwt" {
			t.Errorf("%s: header %v", algorithm, header)
		}
		if chain := header["x5c"].([]any); chain[0] != base64.StdEncoding.EncodeToString(made.Certificate[0]) {
			t.Errorf("%s: the chain is another", algorithm)
		}
		if claims["sub"] != "spiffe://callers.example/chat" || claims["aud"] != "keyswitch" {
			t.Errorf("%s: claims %v", algorithm, claims)
		}
		if claims["iat"] != float64(now.Unix()) || claims["exp"] != float64(now.Unix()+300) {
			t.Errorf("%s: times %v", algorithm, claims)
		}
		signature, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil || !verifies(key.Public(), []byte(parts[0]+"."+parts[1]), signature) {
			t.Errorf("%s: the signature is none", algorithm)
		}
	}
}

func TestACertificateWithoutOneNameSignsNothing(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	for _, names := range [][]string{nil, {"https://callers.example"}, {"spiffe://a/b", "spiffe://a/c"}} {
		if proof, err := sign(pair(t, key, names...), time.Unix(0, 0)); err == nil {
			t.Errorf("%v gave %q", names, proof)
		}
	}
}

func TestProofsAreRenewedAndFollowTheCertificate(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	names, now := []string{"spiffe://a/one", "spiffe://a/two"}, time.Unix(1_800_000_000, 0)
	asked := 0
	proofs := &prover{now: func() time.Time { return now }, certificates: func() (*tls.Certificate, error) {
		asked++
		return pair(t, key, names[asked-1]), nil
	}}
	subject := func() string {
		metadata, err := proofs.GetRequestMetadata(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		proof := strings.TrimPrefix(metadata["authorization"], "Bearer ")
		claims := part(t, strings.Split(proof, ".")[1])
		return fmt.Sprint(claims["sub"], " ", int64(claims["iat"].(float64)))
	}
	if _, err := proofs.certificate(nil); err != nil {
		t.Fatal(err)
	}
	if first := subject(); first != "spiffe://a/one 1800000000" {
		t.Error(first)
	}
	now = now.Add(time.Minute)
	if kept := subject(); kept != "spiffe://a/one 1800000000" {
		t.Error(kept)
	}
	now = now.Add(2 * time.Minute)
	if renewed := subject(); renewed != "spiffe://a/one 1800000180" {
		t.Error(renewed)
	}
	if _, err := proofs.certificate(nil); err != nil {
		t.Fatal(err)
	}
	if changed := subject(); changed != "spiffe://a/two 1800000180" {
		t.Error(changed)
	}
	if printed := fmt.Sprintf("%v %#v", proofs, proofs); strings.Contains(printed, "ey") {
		t.Error("a proof is printed")
	}
}
