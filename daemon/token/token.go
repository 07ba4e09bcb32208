// Package token is what clients show who are let in for what they know, as
// against who they are: other users of this machine, and other machines.
//
// A token is a secret with a name, rights and mostly an end. The secret is shown
// once, when it is made; the file has its SHA-256. A slow hash such as bcrypt
// would guard words that people think of, which can be guessed. Here are 260
// random bits to guess, and each request would have to wait for the hash.
package token

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Right is something that a token permits.
type Right string

// The rights. None includes another.
const (
	// Generate is to run jobs, to ask where one would run, and to list models
	// and backends.
	Generate Right = "generate"
	// Metrics is to read /metrics, and nothing else.
	Metrics Right = "metrics"
	// Control is to see what jobs took, and to change holds and the policy.
	Control Right = "control"
	// Admin is to pull, create, copy, push and delete models.
	Admin Right = "admin"
	// Anyone is what every token permits: to see that somebody is there.
	Anyone Right = ""
)

// Rights lists those that a token can have.
func Rights() []Right { return []Right{Generate, Metrics, Control, Admin} }

// ParseRight returns the right of that name.
func ParseRight(name string) (Right, error) {
	if r := Right(name); slices.Contains(Rights(), r) {
		return r, nil
	}
	return "", fmt.Errorf("%q is none of the rights generate, metrics, control and admin", name)
}

// Token is one, without its secret.
type Token struct {
	Name    string    `json:"name"`
	Rights  []Right   `json:"rights"`
	Created time.Time `json:"created"`
	// Expires is the zero time if it does not.
	Expires time.Time `json:"expires,omitzero"`
	// Hash is the SHA-256 of the secret.
	Hash Hash `json:"sha256"`
}

// May reports whether the token permits something.
func (t Token) May(r Right) bool { return r == Anyone || slices.Contains(t.Rights, r) }

// Expired reports whether the token is no longer good.
func (t Token) Expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

// longestName is in characters: names are columns in lists.
const longestName = 64

// CheckName says what is wrong with the name of a token, which stands in lists,
// in logs and on command lines.
func CheckName(name string) error {
	if name == "" || len(name) > longestName {
		return fmt.Errorf("want a name of 1 to %d characters", longestName)
	}
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
		default:
			return fmt.Errorf("the name %q has other characters than letters, digits, '-', '_' and '.'", name)
		}
	}
	return nil
}

// Prefix is how every secret begins, so that ours are told from what clients
// send who only have to send something, and are found where they leak.
const Prefix = "joulemux_"

// secretLength is that of every secret.
const secretLength = len(Prefix) + 2*26

// NewSecret returns a secret that nobody can guess.
func NewSecret() string { return Prefix + rand.Text() + rand.Text() }

// IsOurs reports whether something is meant to be one of our secrets, be it good
// or not.
func IsOurs(secret string) bool { return strings.HasPrefix(secret, Prefix) }

// Hash is the SHA-256 of a secret.
type Hash [sha256.Size]byte

// HashOf returns the hash of a secret.
func HashOf(secret string) Hash { return sha256.Sum256([]byte(secret)) }

// MarshalText writes the hash in hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads what MarshalText writes.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("want %d hexadecimal digits", hex.EncodedLen(len(h)))
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// find returns the token of a secret. How long that takes tells nothing of the
// secrets there are: it compares hashes, each of them as a whole, and all.
func find(all []Token, secret string) (t Token, found bool) {
	if len(secret) != secretLength {
		return Token{}, false
	}
	h, at := HashOf(secret), -1
	for i := range all {
		at = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(h[:], all[i].Hash[:]), i, at)
	}
	if at < 0 {
		return Token{}, false
	}
	return all[at], true
}
