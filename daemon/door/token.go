package door

import (
	"context"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/token"
)

// Tokens tells which tokens there are. *token.File does.
type Tokens interface {
	All() ([]token.Token, error)
	Find(secret string) (t token.Token, found bool, err error)
}

// credentialHeaders are those in which clients show something: of OpenAI's, of
// Anthropic's and of Azure's. The last two say what is between a browser, or a
// proxy, and whoever it takes us for.
var credentialHeaders = []string{"Authorization", "X-Api-Key", "Api-Key", "Cookie", "Proxy-Authorization"}

// presented returns what a client shows: one of our secrets, if there is one, or
// else anything or "".
func presented(h http.Header) string {
	first := ""
	for _, name := range credentialHeaders[:3] {
		for _, value := range h[name] {
			if name == "Authorization" {
				value = bearer(value)
			}
			value = strings.TrimSpace(value)
			if token.IsOurs(value) {
				return value
			}
			if first == "" {
				first = value
			}
		}
	}
	return first
}

// bearer returns what follows the scheme of that name (RFC 6750), or "".
func bearer(value string) string {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(value), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return rest
}

// forget takes out of a head what a client shows.
func forget(h http.Header) {
	for _, name := range credentialHeaders {
		delete(h, name)
	}
}

type tokenKey struct{}

// tokenOf returns the token that was shown with a request.
func tokenOf(ctx context.Context) (token.Token, bool) {
	t, ok := ctx.Value(tokenKey{}).(token.Token)
	return t, ok
}

// Permits reports whether a request was let in by a token which has that right.
func Permits(ctx context.Context, r token.Right) bool {
	t, ok := tokenOf(ctx)
	return ok && t.May(r)
}

// identify finds out who asks, and whether he may. What is meant to be a token
// of ours has to be one. Anything else that this user's own programs show is
// nothing to us: many clients insist on sending some key. A page that may have jobs
// run is none of them: what others' jobs took, and the policy, are not for it.
func (d *Door) identify(w http.ResponseWriter, r *http.Request, c *caller, s *Settings, right token.Right, shown string) (*http.Request, error) {
	if token.IsOurs(shown) {
		t, err := d.redeem(w, c, s, shown)
		switch {
		case err != nil:
			return r, err
		case !t.May(right):
			return r, job.Errorf(job.Forbidden, "the token %q is not for this, which takes the right %q", t.Name, right)
		}
		return r.WithContext(context.WithValue(r.Context(), tokenKey{}, t)), nil
	}
	switch required := s.RequireToken && c.tcp; {
	case !required && c.ours():
		if right == token.Control && c.tcp && r.Header.Get("Origin") != "" {
			return r, job.Errorf(job.Forbidden, "of a web page this takes a token with the right %q", right)
		}
		return r, nil
	case !required && !s.haveTokens():
		return r, strange()
	case shown != "":
		return r, d.refuse(w, c, "what was shown is no token of this joulemux")
	default:
		challenge(w, "")
		return r, job.Errorf(job.Unauthenticated, "this takes a token, in the header Authorization: Bearer; joulemux token create makes one")
	}
}

// strange is what others get where no token would help.
func strange() error {
	return job.Errorf(job.Forbidden, "this joulemux serves the user %d alone", os.Getuid())
}

func (s *Settings) haveTokens() bool {
	if s.Tokens == nil {
		return false
	}
	all, err := s.Tokens.All()
	return err == nil && len(all) > 0
}

// redeem returns the token of a secret, if it is good.
func (d *Door) redeem(w http.ResponseWriter, c *caller, s *Settings, secret string) (token.Token, error) {
	if s.Tokens == nil {
		return token.Token{}, d.refuse(w, c, "there are no tokens")
	}
	t, found, err := s.Tokens.Find(secret)
	switch {
	case err != nil:
		d.log.Error("the tokens cannot be read", "err", err)
		return t, d.refuse(w, c, "the tokens cannot be read, as the log says")
	case !found:
		return t, d.refuse(w, c, "there is no such token, or no longer")
	case t.Expired(time.Now()):
		return t, d.refuse(w, c, "the token \""+t.Name+"\" expired on "+t.Expires.Local().Format(time.DateTime))
	default:
		return t, nil
	}
}

// refuse is for whoever shows something that is not good, and takes note of it.
// Those who do so often are told to wait. What is good is not held up by them.
func (d *Door) refuse(w http.ResponseWriter, c *caller, why string) error {
	if after := d.failed.take(time.Now()); after > 0 {
		return &job.Error{Code: job.Busy, Detail: "too many tokens were refused", RetryAfter: after}
	}
	from := "the Unix socket"
	if c.tcp {
		from = c.from.String()
	}
	d.log.Warn("a token is refused", "why", why, "from", from)
	challenge(w, "invalid_token")
	return job.Errorf(job.Unauthenticated, "%s", why)
}

// challenge says, as RFC 6750 has it, what to show.
func challenge(w http.ResponseWriter, problem string) {
	value := `Bearer realm="joulemux"`
	if problem != "" {
		value += `, error="` + problem + `"`
	}
	w.Header().Set("WWW-Authenticate", value)
}

// tries bounds how often all together are told that what they show is not good.
// The zero value is ready. Nobody can guess 260 bits; this is for the log's sake,
// and for the processor's.
type tries struct {
	mu sync.Mutex
	// paid is when all that were told before have been paid for.
	paid time.Time
}

const (
	// tryCost is the time for one, and tryCredit how many may come at once.
	tryCost   = time.Second
	tryCredit = 20
)

// take takes one, or returns when there is one again.
func (t *tries) take(now time.Time) (after time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.paid.Before(now) {
		t.paid = now
	}
	if after := t.paid.Add(tryCost).Sub(now) - tryCredit*tryCost; after > 0 {
		return after
	}
	t.paid = t.paid.Add(tryCost)
	return 0
}
