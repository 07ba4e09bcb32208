package endpoint_test

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
)

// TestMain has the system trust nobody: to read whom it does takes seconds where
// many tests run at once.
func TestMain(m *testing.M) {
	_ = os.Setenv("SSL_CERT_FILE", os.DevNull)
	_ = os.Setenv("SSL_CERT_DIR", "/nowhere")
	os.Exit(m.Run())
}

const secret = "sk-test-4711"

// keyFile returns a file with a key in it.
func keyFile(t *testing.T, key string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(key+"\n"), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// certificate returns a file with the certificate of a server in it.
func certificate(t *testing.T, server *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// at returns the endpoint of a server.
func at(t *testing.T, address string, a endpoint.Access) *endpoint.Endpoint {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	e := endpoint.New(u)
	e.Use(a)
	t.Cleanup(e.Close)
	return e
}

func ask(t *testing.T, e *endpoint.Endpoint) error {
	t.Helper()
	var answer json.RawMessage
	_, err := e.Get(t.Context(), "/v1/models", &answer)
	return err
}

// lock is a server that answers whoever has its key.
type lock struct {
	key   atomic.Pointer[string]
	asked atomic.Int32
}

func (l *lock) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.asked.Add(1)
	if r.Header.Get("Authorization") != "Bearer "+*l.key.Load() {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":{"message":"Incorrect API key provided: `+r.Header.Get("Authorization")+`"}}`)
		return
	}
	if body, _ := io.ReadAll(r.Body); r.Method == http.MethodPost && string(body) != "{}" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_, _ = io.WriteString(w, "{}")
}

func locked(key string) *lock {
	l := new(lock)
	l.key.Store(&key)
	return l
}

func TestAServerIsAskedWithTheKeyAndOnlyIfItsCertificateIsGood(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(locked(secret))
	t.Cleanup(server.Close)
	key := endpoint.Key{File: keyFile(t, secret, 0o600)}
	if err := ask(t, at(t, server.URL, endpoint.Access{Key: key, CA: certificate(t, server)})); err != nil {
		t.Errorf("with its certificate: %v", err)
	}
	if err := ask(t, at(t, server.URL, endpoint.Access{Key: key})); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with the system's authorities alone: %v", err)
	}
	empty := keyFile(t, "none", 0o600)
	if err := ask(t, at(t, server.URL, endpoint.Access{Key: key, CA: empty})); err == nil || !strings.Contains(err.Error(), "no certificate in it") {
		t.Errorf("with a file that has none: %v", err)
	}
}

func TestAKeyThatOthersMayReadIsNotUsed(t *testing.T) {
	t.Parallel()
	l := locked(secret)
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	tests := []struct {
		name string
		key  endpoint.Key
		want string
	}{
		{"0644", endpoint.Key{File: keyFile(t, secret, 0o644)}, "others may read it (mode 0644): chmod 600"},
		{"0640", endpoint.Key{File: keyFile(t, secret, 0o640)}, "others may read it (mode 0640)"},
		{"none", endpoint.Key{File: filepath.Join(t.TempDir(), "none")}, "no such file"},
		{"a folder", endpoint.Key{File: t.TempDir()}, "it is no regular file"},
		{"empty", endpoint.Key{File: keyFile(t, "", 0o600)}, "it is empty"},
		{"two lines", endpoint.Key{File: keyFile(t, "a\nb", 0o600)}, "want one line"},
		{"a header", endpoint.Key{File: keyFile(t, "a\r\nX-Evil: b", 0o600)}, "want one line"},
		{"endless", endpoint.Key{File: keyFile(t, strings.Repeat("a", 9000), 0o600)}, "longer than 8192 bytes"},
		{"no credentials", endpoint.Key{Credential: "vendor"}, "the service manager has handed over none"},
	}
	for _, tt := range tests {
		err := ask(t, at(t, server.URL, endpoint.Access{Key: tt.key}))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if n := l.asked.Load(); n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
	if err := ask(t, at(t, server.URL, endpoint.Access{Key: endpoint.Key{File: keyFile(t, secret, 0o400)}})); err != nil {
		t.Errorf("0400: %v", err)
	}
}

func TestACredentialIsAKey(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", folder)
	// As the service manager hands it over to a user's service, with an access list.
	if err := os.WriteFile(filepath.Join(folder, "vendor"), []byte(secret), 0o440); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(locked(secret))
	t.Cleanup(server.Close)
	if err := ask(t, at(t, server.URL, endpoint.Access{Key: endpoint.Key{Credential: "vendor"}})); err != nil {
		t.Error(err)
	}
}

func TestAKeyIsReplacedWhileTheServerIsInUse(t *testing.T) {
	t.Parallel()
	l := locked(secret)
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	path := keyFile(t, secret, 0o600)
	e := at(t, server.URL, endpoint.Access{Key: endpoint.Key{File: path}})
	if err := ask(t, e); err != nil {
		t.Fatal(err)
	}
	next := "sk-test-4712"
	l.key.Store(&next)
	if err := os.WriteFile(path+".new", []byte(next), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	resp, err := e.Post(t.Context(), "/v1/chat/completions", []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("after the key was replaced: %s", resp.Status)
	}
}

func TestARefusedKeyIsInNoError(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(locked("another"))
	t.Cleanup(server.Close)
	path := keyFile(t, secret, 0o600)
	e := at(t, server.URL, endpoint.Access{Key: endpoint.Key{File: path}})
	want := "backend failed: 401 Unauthorized: it does not take the key in " + path
	if err := ask(t, e); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	resp, err := e.Post(t.Context(), "/v1/chat/completions", []byte("{}"))
	if err == nil {
		_ = resp.Body.Close()
	}
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestAServerThatRepeatsTheKeyInAnErrorIsNotRepeated(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, "too many with "+r.Header.Get("Authorization"))
	}))
	t.Cleanup(server.Close)
	e := at(t, server.URL, endpoint.Access{Key: endpoint.Key{File: keyFile(t, secret, 0o600)}})
	resp, err := e.Post(t.Context(), "/v1/chat/completions", []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "too many with Bearer ***" {
		t.Errorf("got %s", body)
	}
}

// TestAKeyInTheMidstOfAnAnswerIsMadeOut, in whatever pieces it comes, and holds up
// nothing else.
func TestAKeyInTheMidstOfAnAnswerIsMadeOut(t *testing.T) {
	t.Parallel()
	const long = secret + "-0815-4711"
	said := "data: {}\n\ns sk sk- data: {\"error\":\"a bad key: " + long + long + ", sk-test-471 " + long[:5] + long + "\"}\n\nsk-test-47"
	for _, size := range []int{1, 2, 3, 7, 11, 12, 13, 1000} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for rest := said; rest != ""; rest = rest[min(size, len(rest)):] {
				_, _ = io.WriteString(w, rest[:min(size, len(rest))])
				_ = http.NewResponseController(w).Flush()
			}
		}))
		t.Cleanup(server.Close)
		e := at(t, server.URL, endpoint.Access{Key: endpoint.Key{File: keyFile(t, long, 0o600)}})
		resp, err := e.Post(t.Context(), "/v1/chat/completions", []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if want := strings.ReplaceAll(said, long, strings.Repeat("*", len(long))); err != nil || string(got) != want {
			t.Errorf("in pieces of %d: %q, %v", size, got, err)
		}
	}
}

func TestAnAnswerIsHeldUpByNoKey(t *testing.T) {
	t.Parallel()
	const long = secret + "-0815-4711"
	more := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "data: s\n\n")
		_ = http.NewResponseController(w).Flush()
		<-more
	}))
	t.Cleanup(server.Close)
	e := at(t, server.URL, endpoint.Access{Key: endpoint.Key{File: keyFile(t, long, 0o600)}})
	resp, err := e.Post(t.Context(), "/v1/chat/completions", []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	line := make([]byte, len("data: s\n\n"))
	if _, err := io.ReadFull(resp.Body, line); err != nil || string(line) != "data: s\n\n" {
		t.Errorf("got %q, %v", line, err)
	}
	close(more)
}

// TestAWordIsNoSecret: servers on this machine are often given one for a key.
func TestAWordIsNoSecret(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "none of them") }))
	t.Cleanup(server.Close)
	e := at(t, server.URL, endpoint.Access{Key: endpoint.Key{File: keyFile(t, "none", 0o600)}})
	resp, err := e.Post(t.Context(), "/v1/chat/completions", []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "none of them" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestTheKeyIsForNobodyElse: wherever a server sends its clients, nobody goes
// there, neither with the key nor without.
func TestTheKeyIsForNobodyElse(t *testing.T) {
	t.Parallel()
	elsewhere := locked(secret)
	other := httptest.NewServer(elsewhere)
	t.Cleanup(other.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+"/private?token=1", status)
		}))
		t.Cleanup(server.Close)
		for _, a := range []endpoint.Access{{}, {Key: endpoint.Key{File: keyFile(t, secret, 0o600)}}} {
			e := at(t, server.URL, a)
			err := ask(t, e)
			if err == nil || !strings.Contains(err.Error(), "it sends its clients to "+other.URL+";") || strings.Contains(err.Error(), "token") {
				t.Errorf("%d: %v", status, err)
			}
			if resp, err := e.Post(t.Context(), "/v1/chat/completions", []byte("{}")); err == nil {
				_ = resp.Body.Close()
				t.Errorf("%d: a redirection is an answer", status)
			}
		}
	}
	if n := elsewhere.asked.Load(); n != 0 {
		t.Errorf("the other server was asked %d times", n)
	}
}

func TestWithoutEncryptionThereIsOnlyTheUsersOwnNetwork(t *testing.T) {
	t.Parallel()
	e := at(t, "http://192.0.2.1:1", endpoint.Access{Private: true}) // documentation's own, where nobody is
	if err := ask(t, e); err == nil || !strings.Contains(err.Error(), "192.0.2.1 is not on a private network; use https") {
		t.Errorf("got %v", err)
	}
	server := httptest.NewServer(locked(secret))
	t.Cleanup(server.Close)
	if err := ask(t, at(t, server.URL, endpoint.Access{Private: true, Key: endpoint.Key{File: keyFile(t, secret, 0o600)}})); err != nil {
		t.Errorf("on this machine: %v", err)
	}
}

func TestWhenAServerWantsToBeAskedAgain(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]time.Duration{
		"": 0, "30": 30 * time.Second, "0.5": 500 * time.Millisecond, "-1": 0, "soon": 0, "NaN": 0, "1e300": 24 * time.Hour, "+Inf": 24 * time.Hour,
		"Wed, 21 Oct 2015 07:28:00 GMT": 0, "Wed, 21 Oct 2515 07:28:00 GMT": 24 * time.Hour,
	} {
		if got := endpoint.RetryAfter(&http.Response{Header: http.Header{"Retry-After": {said}}}); got != want {
			t.Errorf("%q is %v, want %v", said, got, want)
		}
	}
}
