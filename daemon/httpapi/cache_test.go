package httpapi_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/httpapi"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// lines is a stream of two tokens.
var twoTokens = []string{
	`{"model":"m","message":{"role":"assistant","content":"Hel"},"done":false}` + "\n",
	`{"model":"m","message":{"role":"assistant","content":"lo"},"done":false}` + "\n",
	`{"model":"m","created_at":"then","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":9,"eval_count":2,"eval_duration":9}` + "\n",
}

// remembered is a server whose models have a digest.
func remembered(script http.HandlerFunc) *scriptedOllama {
	o := with(script)
	o.digest = "0123"
	return o
}

// post sends a request over the socket, or over TCP as the program curl.
func (r *rig) post(t testing.TB, client *http.Client, base, path, body string, set ...string) (head http.Header, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", "curl/8")
	for i := 0; i+1 < len(set); i += 2 {
		req.Header.Set(set[i], set[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header, string(all)
}

const fixedChat = `{"model":"m","messages":[{"role":"user","content":"hi"}],"options":{"temperature":0}}`

func TestStreamFromTheCache(t *testing.T) {
	o := remembered(says("application/x-ndjson", twoTokens...))
	r := newRig(t, o)
	_, first := r.post(t, r.overTCP, "http://"+r.addr, "/api/chat", fixedChat)
	// The same in another form, for who does not want our member.
	again := `{ "options": {"temperature": 0}, "keep_alive": "1m", "stream":true,"messages":[{"content":"hi","role":"user"}],"model":"m","joulemux":false}`
	head, second := r.post(t, r.overTCP, "http://"+r.addr, "/api/chat", again)
	if second != strings.Join(twoTokens, "") || head.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("got %q", second)
	}
	if head.Get("X-From-Cache") != "true" || head.Get("X-Backend-Used") != "one" || !strings.HasPrefix(head.Get("X-Routing-Reason"), "answered before, ") {
		t.Errorf("the head is %v", head)
	}
	_, third := r.post(t, r.overTCP, "http://"+r.addr, "/api/chat", fixedChat, "X-Request-Id", "third")
	last := third[strings.LastIndex(strings.TrimSpace(third), "\n")+1:]
	var told struct {
		CreatedAt string `json:"created_at"`
		Joulemux  struct {
			RequestID string  `json:"request_id"`
			FromCache bool    `json:"from_cache"`
			WattHours float64 `json:"energy_wh"`
			Quality   string  `json:"energy_quality"`
			Tokens    int     `json:"tokens_generated"`
		}
	}
	if err := json.Unmarshal([]byte(last), &told); err != nil || told.CreatedAt != "then" {
		t.Fatalf("the last line is %q, %v", last, err)
	}
	if j := told.Joulemux; !j.FromCache || j.RequestID != "third" || j.WattHours != 0 || j.Quality != "none" || j.Tokens != 2 {
		t.Errorf("told as %+v", j)
	}
	if !strings.Contains(first, `"from_cache":false`) || len(o.questions()) != 1 {
		t.Errorf("%d jobs were run; the first: %s", len(o.questions()), first)
	}
	if head, _ := r.post(t, r.overTCP, "http://"+r.addr, "/api/chat", fixedChat, "X-Cache-Enabled", "false"); head.Get("X-From-Cache") != "" || len(o.questions()) != 2 {
		t.Errorf("who wants no earlier answer gets %v", head)
	}
	if head, _ := r.post(t, r.overTCP, "http://"+r.addr, "/api/chat", fixedChat, "User-Agent", "other"); head.Get("X-From-Cache") != "" {
		t.Error("another program gets the answer")
	}
}

func TestUndividedFromTheCache(t *testing.T) {
	const whole = `{"model":"m","message":{"content":"Hello"},"done":true,"eval_count":2}`
	const vectors = `{"model":"m","embeddings":[[1,2]],"prompt_eval_count":1}`
	o := remembered(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/embed" {
			says("application/json", vectors)(w, r)
			return
		}
		says("application/json", whole)(w, r)
	})
	r := newRig(t, o)
	body := strings.Replace(fixedChat, "{", `{"stream":false,`, 1)
	for i, c := range []struct{ path, body, want string }{
		{"/api/chat", body, whole},
		{"/api/embed", `{"model":"m","input":"hi"}`, vectors},
	} {
		for n := range 2 {
			head, text := r.post(t, r.overTCP, "http://"+r.addr, c.path, c.body)
			cached := n > 0
			if text != c.want || (head.Get("X-From-Cache") == "true") != cached || (head.Get("X-Energy-Quality") == "none") != cached {
				t.Errorf("%s, the %d. time: %q, %v", c.path, n+1, text, head)
			}
		}
		if n := len(o.questions()); n != i+1 {
			t.Errorf("%d jobs were run", n)
		}
	}
}

func TestEveryDialectsAnswersAreGivenAgain(t *testing.T) {
	o := remembered(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		stream := strings.Contains(string(body), `"stream":true`)
		kind, pieces := inJSON, map[string][]string{
			"/v1/chat/completions": {wholeChat}, "/v1/completions": {wholeChat}, "/v1/embeddings": {`{"data":[],"usage":{"prompt_tokens":5}}`},
			"/v1/messages": {wholeMsg}, "/v1/responses": {wholeResponse},
		}
		if stream {
			kind, pieces = inEvents, map[string][]string{
				"/v1/chat/completions": {helEvent, stopEvent, usageEvent, doneEvent}, "/v1/completions": {helEvent, stopEvent, usageEvent, doneEvent},
				"/v1/messages": {startEvent, heEvent, deltaEvent, overEvent}, "/v1/responses": {createdEvent, textEvent, completedEvent},
			}
		}
		says(kind, pieces[r.URL.Path]...)(w, r)
	})
	r := newRig(t, o)
	const chat = `"model":"m","temperature":0,"messages":[{"role":"user","content":"hi"}]`
	asked := 0
	for _, c := range []struct {
		path, body, want string
		in               string // at the end of what the report stands
	}{
		{"/v1/chat/completions", chat, wholeChat, wholeChat},
		{"/v1/chat/completions", chat + `,"stream":true`, helEvent + stopEvent + doneEvent, stopEvent},
		{"/v1/chat/completions", chat + `,"stream":true,"stream_options":{"include_usage":true}`, helEvent + stopEvent + usageEvent + doneEvent, usageEvent},
		{"/v1/completions", `"model":"m","seed":1,"prompt":"hi"`, wholeChat, wholeChat},
		{"/v1/embeddings", `"model":"m","input":"hi"`, `{"data":[],"usage":{"prompt_tokens":5}}`, `{"data":[],"usage":{"prompt_tokens":5}}`},
		{"/v1/messages", chat + `,"max_tokens":5`, wholeMsg, wholeMsg},
		{"/v1/messages", chat + `,"max_tokens":5,"stream":true`, startEvent + heEvent + deltaEvent + overEvent, overEvent},
		{"/v1/responses", `"model":"m","temperature":0,"input":"hi"`, wholeResponse, wholeResponse},
		{"/v1/responses", `"model":"m","temperature":0,"input":"hi","stream":true`, createdEvent + textEvent + completedEvent, completedEvent},
	} {
		asked++
		for n, own := range []string{`,"joulemux":{}`, ``, `,"joulemux":true`} {
			head, text := r.post(t, r.overTCP, "http://"+r.addr, c.path, "{"+c.body+own+"}")
			told := text
			if own != "" {
				end := strings.LastIndexByte(c.in, '}')
				before, after, _ := strings.Cut(text, `,"joulemux":`)
				var report map[string]any
				d := json.NewDecoder(strings.NewReader(after))
				if err := d.Decode(&report); err != nil || report["from_cache"] != (n > 0) || !strings.HasSuffix(before, c.in[:end]) || report["prompt_tokens"] != 5.0 {
					t.Errorf("%s %s: the report is %v, %v, in %s", c.path, c.body, report, err, text)
				}
				told = before + after[d.InputOffset():]
			}
			if told != c.want || (head.Get("X-From-Cache") == "true") != (n > 0) {
				t.Errorf("%s %s%s: %v\n%q\nwant\n%q", c.path, c.body, own, head, told, c.want)
			}
		}
		if n := len(o.questions()); n != asked {
			t.Fatalf("%s %s: %d jobs were run, want %d", c.path, c.body, n, asked)
		}
	}
}

func TestCacheIsShownAndEmptied(t *testing.T) {
	o := remembered(says("application/x-ndjson", twoTokens...))
	r := newRig(t, o)
	look := func(method string) (c wire.Cache) {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), method, "http://localhost/joulemux/v1/cache", nil)
		resp, err := r.overUnix.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for range 2 {
		r.post(t, r.overTCP, "http://"+r.addr, "/api/chat", fixedChat)
	}
	if c := look(http.MethodGet); c.Entries != 1 || c.Hits != 1 || c.Misses != 1 || c.Bytes == 0 || c.MaxBytes != 8<<20 || c.Shared {
		t.Errorf("got %+v", c)
	}
	if c := look(http.MethodDelete); c.Entries != 1 {
		t.Errorf("what was there is %+v", c)
	}
	if c := look(http.MethodGet); c.Entries != 0 || c.Bytes != 0 || c.Hits != 1 {
		t.Errorf("got %+v", c)
	}
	r.post(t, r.overTCP, "http://"+r.addr, "/api/chat", fixedChat)
	r.Configure(httpapi.Settings{MaxBody: 4 << 20, AllowAdmin: true})
	r.post(t, r.overTCP, "http://"+r.addr, "/api/create", `{"model":"m","from":"n"}`)
	if c := look(http.MethodGet); c.Entries != 0 {
		t.Errorf("of a model that was replaced there is %+v", c)
	}
}

// BenchmarkFromCache compares what is answered from the cache with what is
// answered by nobody, over the same connection.
func BenchmarkFromCache(b *testing.B) {
	r := newRig(b, remembered(says("application/x-ndjson", twoTokens...)))
	whole := strings.Replace(fixedChat, "{", `{"stream":false,`, 1)
	for _, c := range []struct{ name, path, body string }{
		{"nothing", "/api/chat", `{`},
		{"stream", "/api/chat", fixedChat},
		{"whole", "/api/chat", whole},
	} {
		b.Run(c.name, func(b *testing.B) {
			r.post(b, r.overUnix, "http://localhost", c.path, c.body)
			for b.Loop() {
				r.post(b, r.overUnix, "http://localhost", c.path, c.body)
			}
		})
	}
}
