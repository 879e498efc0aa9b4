package keyswitch

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"sync"
	"time"
)

const (
	proofType     = "keyswitch-proof+jwt"
	proofAudience = "keyswitch"
	proofLifetime = 5 * time.Minute
	proofRenewal  = 2 * time.Minute
)

// Certificates gives the caller's certificate with its chain and key. It is asked
// for each new connection and each new proof, so it may give a renewed one at any
// time: calls under way are not touched.
type Certificates func() (*tls.Certificate, error)

// CertificateFiles gives what two files of PEM hold now.
func CertificateFiles(certificate, key string) Certificates {
	return func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		return &pair, err
	}
}

// prover signs what proves the caller to the credential service, to which the
// caller has no connection when the router asks it for a key.
type prover struct {
	certificates Certificates
	now          func() time.Time

	lock  sync.Mutex
	pair  *tls.Certificate
	proof string
	made  time.Time
}

func (p *prover) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	proof, err := p.current()
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + proof}, nil
}

func (*prover) RequireTransportSecurity() bool {
	return true
}

// String keeps the proof out of whatever prints the options of a connection.
func (*prover) String() string {
	return "certificate proof"
}

// GoString is String, for %#v.
func (*prover) GoString() string {
	return "certificate proof"
}

// certificate is what a new connection shows. The proofs of the calls on it are of
// the same certificate, which the services insist on.
func (p *prover) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	pair, err := p.certificates()
	if err != nil {
		return nil, err
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	p.pair, p.proof = pair, ""
	return pair, nil
}

func (p *prover) current() (string, error) {
	p.lock.Lock()
	defer p.lock.Unlock()
	now := p.now()
	if age := now.Sub(p.made); p.proof != "" && age >= 0 && age < proofRenewal {
		return p.proof, nil
	}
	if p.pair == nil {
		pair, err := p.certificates()
		if err != nil {
			return "", err
		}
		p.pair = pair
	}
	proof, err := sign(p.pair, now)
	if err != nil {
		return "", err
	}
	p.proof, p.made = proof, now
	return proof, nil
}

func sign(pair *tls.Certificate, now time.Time) (string, error) {
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return "", err
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].Scheme != "spiffe" {
		return "", errors.New("keyswitch: the certificate needs exactly one URI name, which is a SPIFFE id")
	}
	chain := make([]string, len(pair.Certificate))
	for i, der := range pair.Certificate {
		chain[i] = base64.StdEncoding.EncodeToString(der)
	}
	algorithm, signer, err := algorithmOf(pair.PrivateKey)
	if err != nil {
		return "", err
	}
	header, err := json.Marshal(map[string]any{"alg": algorithm, "typ": proofType, "x5c": chain})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{
		"aud": proofAudience,
		"sub": leaf.URIs[0].String(),
		"iat": now.Unix(),
		"exp": now.Add(proofLifetime).Unix(),
		"jti": NewRequestID(),
	})
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(claims)
	signature, err := signer([]byte(text))
	if err != nil {
		return "", err
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

func algorithmOf(key crypto.PrivateKey) (string, func([]byte) ([]byte, error), error) {
	switch key := key.(type) {
	case ed25519.PrivateKey:
		return "EdDSA", func(text []byte) ([]byte, error) { return ed25519.Sign(key, text), nil }, nil
	case *ecdsa.PrivateKey:
		switch key.Curve.Params().BitSize {
		case 256:
			return "ES256", func(text []byte) ([]byte, error) {
				digest := sha256.Sum256(text)
				return signCurve(key, digest[:], 32)
			}, nil
		case 384:
			return "ES384", func(text []byte) ([]byte, error) {
				digest := sha512.Sum384(text)
				return signCurve(key, digest[:], 48)
			}, nil
		}
	case *rsa.PrivateKey:
		return "PS256", func(text []byte) ([]byte, error) {
			digest := sha256.Sum256(text)
			options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
			return rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], options)
		}, nil
	}
	return "", nil, errors.New("keyswitch: the private key must be of P-256, P-384, Ed25519 or RSA")
}

// signCurve gives the two numbers one after the other, as JWTs have them.
func signCurve(key *ecdsa.PrivateKey, digest []byte, size int) ([]byte, error) {
	r, s, err := ecdsa.Sign(rand.Reader, key, digest)
	if err != nil {
		return nil, err
	}
	signature := make([]byte, 2*size)
	for i, number := range []*big.Int{r, s} {
		number.FillBytes(signature[i*size : (i+1)*size])
	}
	return signature, nil
}
