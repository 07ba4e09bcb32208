package cache

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/job"
)

func ollama(body string) job.Job {
	return job.Job{
		Kind: job.Chat, Client: "me", PromptBytes: 1,
		Original: &job.Original{Dialect: job.Ollama, Path: "/api/chat", Body: []byte(body)},
	}
}

func openAI(body string) job.Job {
	j := ollama(body)
	j.Original.Dialect, j.Original.Path = job.OpenAI, "/v1/chat/completions"
	return j
}

// at is a job of the same kind for another path.
func at(path, body string) job.Job {
	j := openAI(body)
	if j.Original.Path = path; path == "/v1/messages" {
		j.Original.Dialect = job.Anthropic
	}
	return j
}

func key(t *testing.T, j job.Job) (Key, bool) {
	t.Helper()
	return New(DefaultSettings()).Key(&j)
}

func TestWhichAnswersAreTheSameEveryTime(t *testing.T) {
	zero, warm := 0.0, 0.7
	changed := func(j job.Job, change func(*job.Job)) job.Job { change(&j); return j }
	const messages = `"messages":[{"role":"user","content":"hi"}]`
	for _, c := range []struct {
		name string
		job  job.Job
		want bool
	}{
		{"nothing is said of chance", ollama(`{"model":"m",` + messages + `}`), false},
		{"no temperature", ollama(`{"model":"m",` + messages + `,"options":{"temperature":0}}`), true},
		{"none, with an exponent", ollama(`{"model":"m",` + messages + `,"options":{"temperature":0e1}}`), true},
		{"some", ollama(`{"model":"m",` + messages + `,"options":{"temperature":0.1}}`), false},
		{"a seed", ollama(`{"model":"m",` + messages + `,"options":{"seed":42}}`), true},
		{"a seed of 0", ollama(`{"model":"m",` + messages + `,"options":{"seed":0}}`), true},
		{"a random seed", ollama(`{"model":"m",` + messages + `,"options":{"seed":-1}}`), false},
		{"a seed that is none", ollama(`{"model":"m",` + messages + `,"options":{"seed":null,"temperature":"0"}}`), false},
		{"OpenAI's words in Ollama's dialect", ollama(`{"model":"m",` + messages + `,"temperature":0,"seed":1}`), false},
		{"twice, of which one counts", ollama(`{"model":"m",` + messages + `,"options":{"temperature":0,"Temperature":1}}`), false},
		{"twice, by an escape", ollama(`{"model":"m",` + messages + `,"options":{"temperature":0,"t\u0065mperature":1}}`), false},
		{"spoken of", ollama(`{"model":"m","messages":[{"role":"user","content":"\"temperature\":0"}]}`), false},
		{"OpenAI, no temperature", openAI(`{"model":"m",` + messages + `,"temperature":0}`), true},
		{"OpenAI, a seed", openAI(`{"model":"m",` + messages + `,"temperature":1,"seed":7}`), true},
		{"OpenAI, neither", openAI(`{"model":"m",` + messages + `,"options":{"temperature":0}}`), false},
		{"what the server has kept", openAI(`{"model":"m","input":"hi","temperature":0,"previous_response_id":"r"}`), false},
		{"what the server is to keep", openAI(`{"model":"m","input":"hi","temperature":0,"store":true}`), false},
		{"what it is not", openAI(`{"model":"m","input":"hi","temperature":0,"store":false,"previous_response_id":null}`), true},
		{"a seed where there is none", at("/v1/messages", `{"model":"m",`+messages+`,"seed":7}`), false},
		{"a seed in a response", at("/v1/responses", `{"model":"m","input":"hi","seed":7}`), false},
		{"no temperature in a message", at("/v1/messages", `{"model":"m",`+messages+`,"temperature":0,"tools":[{"type":"custom","name":"web_search"}]}`), true},
		{"what the server looks up", at("/v1/messages", `{"model":"m",`+messages+`,"temperature":0,"tools":[{"name":"f"},{"type":"web_search_20250305"}]}`), false},
		{"no wire's dialect", job.Job{Kind: job.Generate, Client: "me", PromptBytes: 1, Content: job.Content{Prompt: "x", Sampling: job.Sampling{Temperature: &zero}}}, true},
		{"no wire's dialect, warm", job.Job{Kind: job.Generate, Client: "me", PromptBytes: 1, Content: job.Content{Prompt: "x", Sampling: job.Sampling{Temperature: &warm}}}, false},
		{"an embedding", job.Job{Kind: job.Embed, Client: "me", PromptBytes: 1, Content: job.Content{Input: []string{"x"}}}, true},
		{"the client does not mind", changed(ollama(`{"model":"m",`+messages+`}`), func(j *job.Job) { j.CacheEnabled = true }), true},
		{"the client minds", changed(openAI(`{"model":"m",`+messages+`,"temperature":0}`), func(j *job.Job) { j.CacheRefused = true }), false},
		{"nobody's", changed(openAI(`{"model":"m",`+messages+`,"temperature":0}`), func(j *job.Job) { j.Client = "" }), false},
		{"a load of the model", changed(ollama(`{"model":"m","options":{"temperature":0}}`), func(j *job.Job) { j.PromptBytes = 0 }), false},
		{"no JSON", openAI(`{"temperature":0`), false},
		{"JSON, and more", openAI(`{"temperature":0}{}`), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, ok := key(t, c.job); ok != c.want {
				t.Errorf("kept: %v", ok)
			}
		})
	}
}

func TestWhoGetsAnAnswer(t *testing.T) {
	mine, yours, nobodys := openAI(`{"temperature":0}`), openAI(`{"temperature":0}`), openAI(`{"temperature":0}`)
	yours.Client, nobodys.Client = "you", ""
	alone, shared := New(Settings{Bytes: 1}), New(Settings{Bytes: 1, Share: true})
	a, _ := alone.Key(&mine)
	b, _ := alone.Key(&yours)
	if a == b {
		t.Error("one client gets what another has asked")
	}
	a, _ = shared.Key(&mine)
	b, _ = shared.Key(&yours)
	c, ok := shared.Key(&nobodys)
	if a != b || a != c || !ok {
		t.Error("they do not share")
	}
	if _, ok := New(Settings{}).Key(&mine); ok {
		t.Error("a cache that is off has a key")
	}
	if _, ok := (*Cache)(nil).Key(&mine); ok {
		t.Error("no cache has a key")
	}
}

// request is one with everything that matters, as text.
const request = `{
	"model": "m", "system": "be \"short\"", "keep_alive": "5m", "stream": true,
	"messages": [{"role": "user", "content": "hi", "images": ["aGk="]}, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}],
	"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"b": {}, "a": {}}}}}],
	"format": {"type": "object", "properties": {"z": {"type": "string"}, "y": {"type": "number"}}},
	"think": false, "logprobs": true, "suffix": "", "raw": false, "template": "t", "context": [1, 2],
	"options": {"temperature": 0, "seed": 1, "num_predict": 5, "num_ctx": 2048, "top_p": 0.9, "stop": ["x", "y"]}
}`

// shuffled writes JSON with the members of free objects in any order, and white
// space anywhere.
func shuffled(r *rand.Rand, v any, free bool) string {
	var b strings.Builder
	blank := func() { b.WriteString([]string{"", "", " ", "\n\t", "  \r\n"}[r.IntN(5)]) }
	switch v := v.(type) {
	case map[string]any:
		names := slices.Sorted(maps.Keys(v))
		if free {
			r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		}
		b.WriteByte('{')
		for i, name := range names {
			if i > 0 {
				b.WriteByte(',')
			}
			blank()
			fmt.Fprintf(&b, "%q", name)
			blank()
			b.WriteByte(':')
			blank()
			b.WriteString(shuffled(r, v[name], free && (name == "options" || name == "messages" || name == "content")))
			blank()
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			blank()
			b.WriteString(shuffled(r, e, free))
			blank()
		}
		b.WriteByte(']')
	default:
		text, _ := json.Marshal(v)
		b.Write(text)
	}
	return b.String()
}

func TestOrderAndWhiteSpaceDoNotMatter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var parsed any
	if err := json.Unmarshal([]byte(request), &parsed); err != nil {
		t.Fatal(err)
	}
	want, ok := key(t, ollama(shuffled(r, parsed, false)))
	if !ok {
		t.Fatal("no key")
	}
	for range 500 {
		text := shuffled(r, parsed, true)
		if got, ok := key(t, ollama(text)); !ok || got != want {
			t.Fatalf("another key for %s", text)
		}
	}
}

func TestEveryOptionMatters(t *testing.T) {
	want, _ := key(t, ollama(request))
	same := func(old, replacement string) bool {
		t.Helper()
		if !strings.Contains(request, old) {
			t.Fatalf("the request has no %s", old)
		}
		got, _ := key(t, ollama(strings.Replace(request, old, replacement, 1)))
		return got == want
	}
	for old, replacement := range map[string]string{
		`"keep_alive": "5m",`: ``, `"stream": true`: `"stream": false`, `"5m"`: `-1`,
	} {
		if !same(old, replacement) {
			t.Errorf("%s instead of %s matters", replacement, old)
		}
	}
	for old, replacement := range map[string]string{
		`"model": "m"`: `"model": "m:latest"`, `be \"short\"`: `be short`, `"hi"`: `"hi "`, `aGk=`: `aGo=`, `"user"`: `"system"`,
		`"f"`: `"g"`, `"b": {}, "a": {}`: `"a": {}, "b": {}`, `"z": {"type": "string"}, "y"`: `"y": {"type": "string"}, "z"`,
		`"think": false`: `"think": true`, `"logprobs": true,`: ``, `"suffix": ""`: `"suffix": "s"`, `"raw": false`: `"raw": true`,
		`"t"`: `"u"`, `[1, 2]`: `[2, 1]`, `[1, 2]}`: `[12]}`, `"seed": 1`: `"seed": 2`, `"num_predict": 5`: `"num_predict": 6`,
		`"num_ctx": 2048`: `"num_ctx": 4096`, `0.9`: `0.8`, `["x", "y"]`: `["y", "x"]`, `["x", "y"]}`: `["x,y"]}`,
	} {
		if strings.Contains(request, old) && same(old, replacement) {
			t.Errorf("%s instead of %s does not matter", replacement, old)
		}
	}
	for name, change := range map[string]func(*job.Job){
		"a stream":     func(j *job.Job) { j.Stream = true },
		"the path":     func(j *job.Job) { j.Original.Path = "/api/generate" },
		"the dialect":  func(j *job.Job) { j.Original.Dialect, j.CacheEnabled = job.OpenAI, true },
		"the kind":     func(j *job.Job) { j.Kind = job.Generate },
		"the model":    func(j *job.Job) { j.Model = "n" },
		"who asks":     func(j *job.Job) { j.Client = "you" },
		"who says so":  func(j *job.Job) { j.Vouched = !j.Vouched },
		"a last space": nil,
	} {
		j := ollama(request)
		if change != nil {
			change(&j)
		} else {
			j.Original.Body = append(j.Original.Body, ' ')
		}
		if got, _ := key(t, j); (got == want) != (change == nil) {
			t.Errorf("%s: the same: %v", name, got == want)
		}
	}
}

func TestContentMatters(t *testing.T) {
	zero, one, forty := 0.0, 1.0, 40
	make := func(change func(*job.Job)) Key {
		j := job.Job{
			Kind: job.Chat, Model: "m", Client: "me", PromptBytes: 1, MaxTokens: 5,
			Content: job.Content{System: "s", Messages: []job.Message{{Role: "user", Content: "hi"}}, Sampling: job.Sampling{Temperature: &zero, TopP: &one, TopK: &forty}},
		}
		change(&j)
		k, ok := key(t, j)
		if !ok {
			t.Fatal("no key")
		}
		return k
	}
	want := make(func(*job.Job) {})
	for name, change := range map[string]func(*job.Job){
		"model": func(j *job.Job) { j.Model = "n" }, "limit": func(j *job.Job) { j.MaxTokens = 6 }, "system": func(j *job.Job) { j.Content.System = "" },
		"message": func(j *job.Job) { j.Content.Messages = append(j.Content.Messages, job.Message{Role: "user"}) },
		"stop":    func(j *job.Job) { j.Content.Sampling.Stop = []string{"x"} }, "top_k": func(j *job.Job) { j.Content.Sampling.TopK = nil },
		"top_p": func(j *job.Job) { j.Content.Sampling.TopP = &zero }, "context": func(j *job.Job) { j.Content.Sampling.ContextLength = &forty },
	} {
		if make(change) == want {
			t.Errorf("%s does not matter", name)
		}
	}
	for name, change := range map[string]func(*job.Job){
		"pieces": func(j *job.Job) { j.Stream = true }, "name": func(j *job.Job) { j.ID = "x" },
		"target": func(j *job.Job) { j.Target = "npu" }, "deadline": func(j *job.Job) { j.Deadline = 1 },
	} {
		if make(change) != want {
			t.Errorf("%s matters", name)
		}
	}
}

func TestFoldKnowsAllThatAreOneLetter(t *testing.T) {
	for _, all := range [][]string{{"seed", "SEED", "\u017feed"}, {"keep", "\u212aeep"}, {"\u00e4", "\u00c4"}} {
		for _, other := range all {
			if fold([]byte(other)) != fold([]byte(all[0])) {
				t.Errorf("%q and %q are not folded to the same", all[0], other)
			}
		}
	}
	if fold([]byte("a_b")) == fold([]byte("a-b")) {
		t.Error("what differs is folded to the same")
	}
}

// FuzzKey looks for requests that mean something else and have the same key: a
// key must be that of what Go's decoder makes of the request.
func FuzzKey(f *testing.F) {
	f.Add([]byte(request), []byte(`{"options":{"seed":1,"seed":2}}`))
	f.Add([]byte(`{"a":1,"seed":1}`), []byte(`{"seed":1,"a": 1}`))
	f.Add([]byte(`{"seed":1,"messages":[[{"a":1},{}]]}`), []byte(`{"seed":1,"messages":[[{"a":1,"b":[]}]]}`))
	f.Add([]byte(`{"seed":1,"\u0041":2}`), []byte(`{"seed":1,"K":2,"K":1}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		one, other := openAI(string(a)), openAI(string(b))
		one.CacheEnabled, other.CacheEnabled = true, true
		k, ok := key(t, one)
		l, also := key(t, other)
		if !json.Valid(a) || !json.Valid(b) || !ok || !also {
			return
		}
		if k == l && means(t, a) != means(t, b) {
			t.Errorf("%s and %s have the same key", a, b)
		}
		// What it is the key of has the same.
		var compact bytes.Buffer
		_ = json.Compact(&compact, a)
		again := openAI(compact.String())
		again.CacheEnabled = true
		if m, ok := key(t, again); !ok || m != k {
			t.Errorf("%s has another key without its white space", a)
		}
	})
}

// means returns a request in one form for all that mean the same.
func means(t *testing.T, body []byte) string {
	t.Helper()
	var v map[string]any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	for name := range idle {
		delete(v, name)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// BenchmarkKey is what a request of a kilobyte takes whose answer repeats, and one
// whose does not: the second is what most jobs pay.
func BenchmarkKey(b *testing.B) {
	c := New(DefaultSettings())
	for name, temperature := range map[string]string{"repeats": "0", "differs": "0.2"} {
		b.Run(name, func(b *testing.B) {
			j := ollama(`{"model":"m","stream":false,"messages":[{"role":"system","content":"` + strings.Repeat("Be brief. ", 30) +
				`"},{"role":"user","content":"` + strings.Repeat("Why is the sky blue? ", 30) + `"}],"options":{"temperature":` + temperature + `,"num_predict":200}}`)
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := c.Key(&j); ok != (name == "repeats") {
					b.Fatal("whether there is a key: ", ok)
				}
			}
		})
	}
}
