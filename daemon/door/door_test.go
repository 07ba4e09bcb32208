package door_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/token"
)

// rig is a door on a real port. Whoever is let in is told how he is called, and
// what is left of the head that he sent.
type rig struct {
	*door.Door
	t      *testing.T
	addr   string
	log    bytes.Buffer // to be read when nobody asks
	tokens *token.File
	client *http.Client
}

// newRig starts one that takes its callers for that user.
func newRig(t *testing.T, uid int, s door.Settings) *rig {
	t.Helper()
	r := &rig{t: t, client: &http.Client{Transport: new(http.Transport)}, tokens: token.Open(filepath.Join(t.TempDir(), "tokens"))}
	r.Door = door.New(func(_, _ netip.AddrPort) (int, bool) { return uid, true }, func(int) string { return "" },
		slog.New(slog.NewTextHandler(&r.log, nil)))
	if s.Tokens == nil {
		s.Tokens = r.tokens
	}
	r.Configure(s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = r.Serve(ctx, l, http.HandlerFunc(r.answer)) })
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		cancel()
		serving.Wait()
	})
	return r
}

func (r *rig) answer(w http.ResponseWriter, req *http.Request) {
	req, err := r.Admit(w, req, token.Right(strings.TrimPrefix(req.URL.Path, "/")), "X-Exposed")
	var e *job.Error
	if errors.As(err, &e) {
		status := map[job.Code]int{job.Forbidden: 403, job.Unauthenticated: 401, job.Busy: 429}[e.Code]
		http.Error(w, e.Error(), status)
		return
	}
	client, vouched := door.Client(req.Context(), req.Header)
	fmt.Fprintf(w, "client %q, vouched %v, admin %v, head %v", client, vouched, door.Permits(req.Context(), token.Admin), req.Header)
}

// make makes a token that ends after that time, unless zero.
func (r *rig) make(name string, after time.Duration, rights ...token.Right) string {
	r.t.Helper()
	t := token.Token{Name: name, Rights: rights, Created: time.Now()}
	if after != 0 {
		t.Expires = time.Now().Add(after)
	}
	secret, err := r.tokens.Create(t)
	if err != nil {
		r.t.Fatal(err)
	}
	return secret
}

// ask asks for what takes that right, with headers such as "Origin: null".
func (r *rig) ask(right token.Right, headers ...string) (status int, head http.Header, text string) {
	return r.send(http.MethodGet, right, headers...)
}

func (r *rig) send(method string, right token.Right, headers ...string) (status int, head http.Header, text string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://"+r.addr+"/"+string(right), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Add(name, value)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

const stranger = 54321

func TestTokensLetOthersIn(t *testing.T) {
	t.Parallel()
	r := newRig(t, stranger, door.Settings{})
	if status, head, text := r.ask(token.Generate); status != 403 || head.Get("WWW-Authenticate") != "" || !strings.Contains(text, "serves the user") {
		t.Errorf("while there are no tokens: %d %v %s", status, head, text)
	}
	phone := r.make("phone", time.Hour, token.Generate)
	prometheus := r.make("prometheus", 0, token.Metrics)
	admin := r.make("admin", 0, token.Generate, token.Admin)
	old := r.make("old", -time.Second, token.Generate)
	gone := r.make("gone", 0, token.Generate)
	if err := r.tokens.Revoke("gone"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what   string
		right  token.Right
		header string
		status int
		says   string
	}{
		{"none", token.Generate, "X: y", 401, "this takes a token"},
		{"one as OpenAI's clients show it", token.Generate, "Authorization: Bearer " + phone, 200, `client "phone", vouched true, admin false`},
		{"the scheme in other letters", token.Generate, "Authorization: bEARER   " + phone, 200, `client "phone"`},
		{"as Anthropic's do", token.Generate, "X-Api-Key: " + phone, 200, `client "phone"`},
		{"as Azure's do", token.Generate, "Api-Key: " + phone, 200, `client "phone"`},
		{"in another scheme", token.Generate, "Authorization: Basic " + phone, 401, "this takes a token"},
		{"without one", token.Generate, "Authorization: " + phone, 401, "this takes a token"},
		{"in the query's place", token.Generate, "Cookie: token=" + phone, 401, "this takes a token"},
		{"one that has expired", token.Generate, "Authorization: Bearer " + old, 401, `the token "old" expired on`},
		{"one that was revoked", token.Generate, "Authorization: Bearer " + gone, 401, "no such token, or no longer"},
		{"a key of somebody else", token.Generate, "Authorization: Bearer sk-1234", 401, "is no token of this joulemux"},
		{"one for something else", token.Metrics, "Authorization: Bearer " + phone, 403, `"phone" is not for this, which takes the right "metrics"`},
		{"that something", token.Metrics, "Authorization: Bearer " + prometheus, 200, `client "prometheus"`},
		{"and nothing else", token.Generate, "Authorization: Bearer " + prometheus, 403, `right "generate"`},
		{"nor the user's own concerns", token.Control, "Authorization: Bearer " + admin, 403, `right "control"`},
		{"models", token.Admin, "Authorization: Bearer " + admin, 200, "admin true"},
		{"whoever has any may look", token.Anyone, "Authorization: Bearer " + prometheus, 200, ""},
	} {
		status, head, text := r.ask(c.right, c.header)
		if status != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d %s", c.what, status, text)
		}
		if told := strings.HasPrefix(head.Get("WWW-Authenticate"), `Bearer realm="joulemux"`); told != (status == 401) {
			t.Errorf("%s: %d, and the challenge is %q", c.what, status, head.Get("WWW-Authenticate"))
		}
		for _, secret := range []string{phone, prometheus, admin, old, gone, "sk-1234"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s: what was shown is handed on: %s", c.what, text)
			}
		}
	}
	for _, secret := range []string{phone, prometheus, admin, old, gone, "sk-1234"} {
		if strings.Contains(r.log.String(), secret) {
			t.Errorf("what was shown is logged: %s", &r.log)
		}
	}
	if !strings.Contains(r.log.String(), "a token is refused") {
		t.Errorf("the log is %s", &r.log)
	}
}

func TestOwnProgramsMayShowAnything(t *testing.T) {
	t.Parallel()
	r := newRig(t, os.Getuid(), door.Settings{})
	phone, old := r.make("phone", 0, token.Generate), r.make("old", -time.Second, token.Generate)
	for header, want := range map[string]int{
		"X: y":                         200,
		"Authorization: Bearer ollama": 200,
		"Authorization: Bearer sk-no-key-required":     200,
		"Authorization: Bearer":                        200,
		"X-Api-Key: dummy":                             200,
		"Authorization: Bearer " + phone:               200,
		"Authorization: Bearer " + old:                 401,
		"Authorization: Bearer joulemux_":              401,
		"Authorization: Bearer " + phone[:50]:          401,
		"X-Api-Key: " + token.NewSecret():              401,
		"Authorization: Bearer " + phone + "\tandmore": 401,
	} {
		if status, _, text := r.ask(token.Generate, header); status != want {
			t.Errorf("%s: %d %s", header, status, text)
		}
	}
	if _, _, text := r.ask(token.Generate, "Authorization: Bearer dummy", "X-Api-Key: "+phone, "User-Agent: x/1"); !strings.Contains(text, `client "phone"`) {
		t.Errorf("of two keys ours counts: %s", text)
	}
	r.Configure(door.Settings{Tokens: r.tokens, RequireToken: true})
	for header, want := range map[string]int{"X: y": 401, "Authorization: Bearer ollama": 401, "Authorization: Bearer " + phone: 200} {
		if status, _, text := r.ask(token.Generate, header); status != want {
			t.Errorf("once tokens are required, %s: %d %s", header, status, text)
		}
	}
}

func TestNobodyVouchesForWhatIsSaidByThePort(t *testing.T) {
	t.Parallel()
	r := newRig(t, os.Getuid(), door.Settings{Origins: []string{"https://zed"}})
	phone := r.make("phone", 0, token.Generate)
	for _, c := range []struct {
		what    string
		headers []string
		want    string
	}{
		{"a program", []string{"User-Agent: zed/1.2 (x)"}, `client "zed", vouched false`},
		{"one of no name", []string{"User-Agent: "}, `client "", vouched false`},
		{"one of a long one", []string{"User-Agent: " + strings.Repeat("z", 100)}, `client "` + strings.Repeat("z", 64) + `", vouched false`},
		{"a page that calls itself a program", []string{"User-Agent: zed/1.2", "Origin: http://localhost:3000"}, `client "http://localhost:3000", vouched false`},
		{"a page of that name", []string{"Origin: https://zed"}, `client "https://zed", vouched false`},
		{"who shows a token", []string{"User-Agent: zed/1.2", "Authorization: Bearer " + phone}, `client "phone", vouched true`},
	} {
		if status, _, text := r.ask(token.Generate, c.headers...); status != 200 || !strings.Contains(text, c.want) {
			t.Errorf("%s: %d %s", c.what, status, text)
		}
	}
}

func TestAPageHasJobsRunAndNoMore(t *testing.T) {
	t.Parallel()
	r := newRig(t, os.Getuid(), door.Settings{Origins: []string{"https://chat.example.com"}})
	bearer := "Authorization: Bearer " + r.make("panel", 0, token.Control)
	for _, origin := range []string{"Origin: https://chat.example.com", "Origin: http://localhost:3000"} {
		for right, want := range map[token.Right]int{token.Generate: 200, token.Anyone: 200, token.Control: 403} {
			if status, _, text := r.ask(right, origin); status != want {
				t.Errorf("%s, for %q: %d %s", origin, right, status, text)
			}
		}
		if status, _, text := r.ask(token.Control, origin, bearer); status != 200 {
			t.Errorf("%s with a token: %d %s", origin, status, text)
		}
	}
	if status, _, text := r.ask(token.Control); status != 200 {
		t.Errorf("a program: %d %s", status, text)
	}
}

func TestHostsAndOriginsCountWhateverIsShown(t *testing.T) {
	t.Parallel()
	r := newRig(t, stranger, door.Settings{Origins: []string{"https://chat.example.com"}, Hosts: []string{"desk.example.org"}})
	bearer := "Authorization: Bearer " + r.make("page", 0, token.Generate)
	for header, want := range map[string]int{
		"Host: desk.example.org:8080": 200, "Host: DESK.example.org.": 200, "Host: 127.0.0.1:1": 200, "Host: localhost": 200,
		"Host: rebound.example.com": 403, "Host: desk.example.org.evil.com": 403, "Host: 10.0.0.1": 403, "Host: x.desk.example.org": 403,
		"Origin: https://chat.example.com": 200, "Origin: https://chat.example.com.evil.com": 403, "Origin: null": 403, "Origin: *": 403,
	} {
		status, head, text := r.ask(token.Generate, bearer, header)
		name, value, _ := strings.Cut(header, ": ")
		if status != want || status == 403 && !strings.Contains(text, name) {
			t.Errorf("%s: %d %s", header, status, text)
		}
		if allowed := head.Get("Access-Control-Allow-Origin"); (allowed != "") != (name == "Origin" && want == 200) || allowed != "" && allowed != value {
			t.Errorf("%s: allowed is %q", header, allowed)
		}
	}
	page := "Origin: https://chat.example.com"
	status, head, _ := r.send(http.MethodOptions, token.Generate, page, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization")
	if status != 200 || head.Get("Access-Control-Allow-Headers") != "authorization" {
		t.Errorf("a browser that asks whether it may ask, for which it shows no token: %d %v", status, head)
	}
	if status, head, _ := r.ask(token.Generate, page); status != 401 || head.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("a page is not told that it takes a token: %d %v", status, head)
	}
	for _, headers := range [][]string{{"Access-Control-Request-Method: POST"}, {page}, {"Origin: https://evil.example.com", "Access-Control-Request-Method: POST"}} {
		if status, _, text := r.send(http.MethodOptions, token.Generate, headers...); status == 200 {
			t.Errorf("%v: %d %s", headers, status, text)
		}
	}
}

func TestFailedTriesAreBoundedAndHoldNobodyUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, stranger, door.Settings{})
	good := "Authorization: Bearer " + r.make("good", 0, token.Generate)
	counts := map[int]int{}
	began := time.Now()
	for range 200 {
		status, _, _ := r.ask(token.Generate, "Authorization: Bearer "+token.NewSecret())
		counts[status]++
		if status, _, text := r.ask(token.Generate, good); status != 200 {
			t.Fatalf("a good token gets %d %s", status, text)
		}
	}
	most := 20 + 1 + int(time.Since(began).Seconds())
	if counts[401] > most || counts[401] < 20 || counts[401]+counts[429] != 200 {
		t.Errorf("got %v, want at most %d refusals", counts, most)
	}
	if n := strings.Count(r.log.String(), "a token is refused"); n != counts[401] {
		t.Errorf("%d lines in the log for %v", n, counts)
	}
}

func TestFileThatCannotBeReadLetsNobodyIn(t *testing.T) {
	t.Parallel()
	r := newRig(t, stranger, door.Settings{})
	secret := r.make("phone", 0, token.Generate)
	if status, _, _ := r.ask(token.Generate, "Authorization: Bearer "+secret); status != 200 {
		t.Fatalf("got %d", status)
	}
	tokens := token.Open(t.TempDir()) // a folder
	r.Configure(door.Settings{Tokens: tokens})
	if status, _, text := r.ask(token.Generate, "Authorization: Bearer "+secret); status != 401 || !strings.Contains(text, "cannot be read") {
		t.Errorf("got %d %s", status, text)
	}
	if status, _, _ := r.ask(token.Generate); status != 403 {
		t.Errorf("got %d", status)
	}
	if !strings.Contains(r.log.String(), "the tokens cannot be read") {
		t.Errorf("the log is %s", &r.log)
	}
}
