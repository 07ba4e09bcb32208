package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/joulemux/joulemux/daemon/job"
)

// Key is what a client asks for: two requests have the same if the same answer
// will do for both.
type Key struct {
	sum    [sha256.Size]byte
	client string
	// vouched keeps a client apart from who calls itself by its name.
	vouched bool
}

// Key returns what a job asks for. It has none if its answer is not to be kept,
// nor one to be given that was.
func (c *Cache) Key(j *job.Job) (Key, bool) {
	if c == nil || j.CacheRefused {
		return Key{}, false
	}
	c.mu.Lock()
	s := c.settings
	c.mu.Unlock()
	if s.Bytes == 0 || j.Client == "" && !s.Share {
		return Key{}, false
	}
	sum, ok := sumOf(j)
	k := Key{sum: sum}
	if !s.Share {
		k.client, k.vouched = j.Client, j.Vouched
	}
	return k, ok
}

// sumOf returns the sum of all that matters to the answer, if that is the same
// every time or the client does not mind.
func sumOf(j *job.Job) (sum [sha256.Size]byte, ok bool) {
	if j.PromptBytes == 0 { // nothing is asked, or we do not know what
		return sum, false
	}
	repeats := j.CacheEnabled || j.Kind == job.Embed
	var what []byte
	if j.Original == nil {
		t := j.Content.Sampling.Temperature
		if !repeats && (t == nil || *t != 0) {
			return sum, false
		}
		what, ok = content(j)
	} else {
		what, ok = original(j, repeats)
	}
	if !ok {
		return sum, false
	}
	return sha256.Sum256(what), true
}

// content returns what a job without an Original asks. It gets text and vectors
// alone, so that it does not matter whether they come in pieces.
func content(j *job.Job) ([]byte, bool) {
	what, err := json.Marshal(struct {
		Kind      job.Kind
		Model     string
		MaxTokens int
		Content   job.Content
	}{j.Kind, j.Model, j.MaxTokens, j.Content})
	return what, err == nil
}

// original returns what an Original asks, unless its answer may differ from one
// time to the next and is not to be taken for one that repeats. Most jobs are such,
// and are to be told from others before anything of theirs is copied.
func original(j *job.Job, repeats bool) (what []byte, ok bool) {
	o := j.Original
	if !repeats && !bytes.Contains(o.Body, []byte("temperature")) && !bytes.Contains(o.Body, []byte("seed")) {
		return nil, false
	}
	w := walk{text: o.Body}
	top, ok := w.members()
	if !ok || w.space() < len(w.text) || depends(top) || !repeats && !fixed(sampling(o.Dialect, top), seeded(o)) {
		return nil, false
	}
	c := canon{out: make([]byte, 0, len(o.Body)+128)}
	for _, word := range []string{string(j.Kind), string(o.Dialect), o.Path, j.Model, strconv.FormatBool(j.Stream)} {
		c.out = append(append(c.out, word...), 0)
	}
	ok = c.object(top, idle, 0)
	return c.out, ok
}

// seeded tells that a request may have a seed. Anthropic's Messages and OpenAI's
// Responses have none, and who writes one there has it ignored.
func seeded(o *job.Original) bool {
	return o.Dialect == job.Ollama || strings.HasSuffix(o.Path, "/completions")
}

// sampling returns the members of a request that say how tokens are chosen, where
// its dialect has them.
func sampling(of job.Dialect, top []member) []member {
	if of != job.Ollama {
		return top
	}
	w := walk{text: find(top, "options")}
	inner, ok := w.members()
	if !ok {
		return nil
	}
	return inner
}

// fixed reports whether there is no chance in how tokens are chosen. Seeded tells
// that a seed counts.
func fixed(sampling []member, seeded bool) bool {
	if t, err := strconv.ParseFloat(string(find(sampling, "temperature")), 64); err == nil && t == 0 {
		return true
	}
	seed, err := strconv.ParseFloat(string(find(sampling, "seed")), 64)
	return seeded && err == nil && seed >= 0
}

// depends reports whether a request is about more than what is in it: what the
// server keeps of others, or is to keep of this one, or looks up for it.
func depends(top []member) bool {
	for _, name := range []string{"previous_response_id", "conversation", "store", "background"} {
		if v := string(find(top, name)); v != "" && v != "null" && v != "false" {
			return true
		}
	}
	var tools []struct{ Type string }
	_ = json.Unmarshal(find(top, "tools"), &tools) // of what else there may be no server knows what to do
	return slices.ContainsFunc(tools, func(t struct{ Type string }) bool { return strings.HasPrefix(t.Type, "web_") })
}

// idle are the members of a request that make no difference to its answer, but
// for stream, of which the job tells.
var idle = map[string]bool{"keep_alive": true, "stream": true, job.OwnMember: true}
