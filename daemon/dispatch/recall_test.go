package dispatch_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/cache"
	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
	"github.com/joulemux/joulemux/power"
)

// keeping has answers kept.
func keeping(r *rig) { r.cache = cache.New(cache.DefaultSettings()) }

// fixed is a job whose answer is the same every time.
func fixed(prompt string) job.Job {
	j := chat()
	j.Client, j.Content.Prompt, j.PromptBytes = "me", prompt, len(prompt)
	j.Content.Sampling.Temperature = new(float64)
	return j
}

// jobs returns how many came to any server.
func (r *rig) jobs() int { return r.npu.count() + r.igpu.count() + r.nvidia.count() + r.cpu.count() }

// kept returns what the ledger has.
func (r *rig) kept() []ledger.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.entries)
}

// spent reports whether a report says that something was.
func spent(r *dispatch.Report) bool { return r.Cost.Known() || r.Cost.Quality != power.None }

func TestWhatWasAnsweredIsNotRunAgain(t *testing.T) {
	scenario(t, keeping, func(t *testing.T, r *rig) {
		first := expect(t, r, fixed("hi"), "ollama-igpu")
		if !spent(first.report) || first.report.FromCache() {
			t.Errorf("the first: %+v", first.report)
		}
		time.Sleep(5 * time.Second)
		for _, s := range []*server{r.npu, r.igpu, r.nvidia, r.cpu} {
			s.down = true
		}
		r.supply(t, 3) // critical
		j := fixed("hi")
		j.Class, j.MaxPower, j.ID = job.Background, power.Watts(1), "second"
		begun := time.Now()
		s := expect(t, r, j, "ollama-igpu")
		report := s.report
		if s.text.String() != first.text.String() || time.Since(begun) > time.Second || r.jobs() != 1 {
			t.Errorf("%q after %v, %d jobs were run", s.text.String(), time.Since(begun), r.jobs())
		}
		if !report.FromCache() || spent(report) || report.ID != "second" || report.Usage != (job.Usage{Tokens: 3}) || report.Decision.Tier != power.Critical {
			t.Errorf("got %+v", report)
		}
		if why := report.Decision.Reason(); why != "answered before, 5 s ago" {
			t.Errorf("since %q", why)
		}
		f := report.Fields()
		if f["from_cache"] != true || f["energy_wh"] != 0.0 || f["energy_quality"] != "none" || f["energy_joules"] != nil || f["estimate_quality"] != "none" {
			t.Errorf("told as %v", f)
		}
		e := r.kept()
		if len(e) != 2 || e[1].Backend != ledger.Cache || e[1].Cost != (power.Cost{Quality: power.None}) || e[1].ID != "second" || e[1].Tokens != 3 || e[1].Tier != power.Critical {
			t.Errorf("the ledger has %+v", e)
		}
		if n := r.backends.Metrics("ollama-igpu").PerMinute; n != 1 {
			t.Errorf("the backend counts %d jobs", n)
		}
		if s := r.cache.Stats(); s.Hits != 1 || s.Misses != 1 || s.Entries != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestWhoGetsNoEarlierAnswer(t *testing.T) {
	for name, change := range map[string]func(*job.Job){
		"another client":     func(j *job.Job) { j.Client = "you" },
		"nobody":             func(j *job.Job) { j.Client = "" },
		"another question":   func(j *job.Job) { j.Content.Prompt = "ho" },
		"one who wants none": func(j *job.Job) { j.CacheRefused = true },
		"left to chance":     func(j *job.Job) { j.Content.Sampling.Temperature = nil },
		"another device":     func(j *job.Job) { j.Target = "cpu" },
		"another backend":    func(j *job.Job) { j.Target = "ollama-npu" },
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, keeping, func(t *testing.T, r *rig) {
				expect(t, r, fixed("hi"), "ollama-igpu")
				j := fixed("hi")
				change(&j)
				s := new(sink)
				if err := r.Run(t.Context(), j, s); err != nil || s.report.FromCache() || r.jobs() != 2 {
					t.Errorf("%v, from cache: %v, %d jobs", err, s.report.FromCache(), r.jobs())
				}
			})
		})
	}
}

func TestTargetsGetTheAnswersOfTheirOwn(t *testing.T) {
	scenario(t, keeping, func(t *testing.T, r *rig) {
		expect(t, r, fixed("hi"), "ollama-igpu")
		for target, want := range map[string]string{"igpu": "ollama-igpu", "ollama-igpu": "ollama-igpu", "auto": "ollama-igpu"} {
			j := fixed("hi")
			j.Target = target
			if s := expect(t, r, j, want); !s.report.FromCache() {
				t.Errorf("%s has it run again", target)
			}
		}
		j := fixed("hi")
		j.Target = "nothing"
		expectError(t, r, j, job.BackendNotFound, "nothing")
	})
}

func TestAnswersGoWithTheModel(t *testing.T) {
	scenario(t, keeping, func(t *testing.T, r *rig) {
		expect(t, r, fixed("hi"), "ollama-igpu")
		for _, s := range []*server{r.npu, r.igpu, r.nvidia, r.cpu} {
			s.mu.Lock()
			s.models = []job.Model{{Name: "m", Digest: "another", Resident: true}}
			s.mu.Unlock()
		}
		time.Sleep(11 * time.Second) // what servers say is taken for true so long
		if s := expect(t, r, fixed("hi"), "ollama-igpu"); s.report.FromCache() {
			t.Error("the answer of weights that are gone")
		}
		if s := r.cache.Stats(); s.Entries != 1 {
			t.Errorf("%d answers are kept", s.Entries)
		}
		if s := expect(t, r, fixed("hi"), "ollama-igpu"); !s.report.FromCache() {
			t.Error("the new answer is not kept")
		}
	})
}

func TestWeightsReplacedMeanwhileKeepNothing(t *testing.T) {
	scenario(t, keeping, func(t *testing.T, r *rig) {
		r.igpu.script = func(ctx context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			r.igpu.mu.Lock()
			r.igpu.models = []job.Model{{Name: "m", Digest: "another", Resident: true}}
			r.igpu.mu.Unlock()
			time.Sleep(3 * time.Second)
			r.backends.Look(ctx)
			return answers("a")(ctx, begin, emit)
		}
		expect(t, r, fixed("hi"), "ollama-igpu")
		if s := r.cache.Stats(); s.Entries != 0 {
			t.Error("an answer is kept, and nobody knows of which weights")
		}
	})
}

func TestWhatIsNotKept(t *testing.T) {
	for name, c := range map[string]struct {
		script script
		assume bool
		embed  bool
		leaves time.Duration
		whole  bool // it is asked for undivided, in Ollama's dialect
	}{
		"a refusal": {script: func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			_ = begin(job.Head{Status: 400})
			return emit(job.Chunk{Text: "no", Last: true})
		}},
		"what broke": {script: func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			_ = begin(job.Head{Status: 200})
			_ = emit(job.Chunk{Text: "a"})
			return job.Errorf(job.BackendFailed, "boom")
		}},
		"what nobody waited for": {script: answers("a", "b", "c"), leaves: 1500 * time.Millisecond},
		"a vector too few": {embed: true, script: func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			_ = begin(job.Head{Status: 200})
			return emit(job.Chunk{Vectors: [][]float32{{1}}, Last: true})
		}},
		"of weights without digest": {script: answers("a"), assume: true},
		"half an undivided answer": {whole: true, script: func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			_ = begin(job.Head{Status: 200})
			return emit(job.Chunk{Raw: []byte(`{"response":"a`), Last: true})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, func(r *rig) {
				keeping(r)
				r.igpu.script = c.script
				r.igpu.models[0].Assumed = c.assume
			}, func(t *testing.T, r *rig) {
				j := fixed("hi")
				j.Target, j.Deadline = "igpu", c.leaves
				if c.embed {
					j.Kind, j.Content = job.Embed, job.Content{Input: []string{"a", "b"}}
				}
				if c.whole {
					j.Stream, j.Content = false, job.Content{}
					j.Original = &job.Original{Dialect: job.Ollama, Path: "/api/generate", Body: []byte(`{"model":"m","stream":false,"options":{"seed":1}}`)}
				}
				_ = r.Run(t.Context(), j, new(sink))
				if s := r.cache.Stats(); s.Entries != 0 || s.Misses != 1 {
					t.Errorf("got %+v", s)
				}
			})
		})
	}
}

func TestBytesComeBackAsTheyWere(t *testing.T) {
	head := job.Head{Status: 200, ContentType: "application/x-ndjson", Length: -1, Warning: "w"}
	scenario(t, func(r *rig) {
		keeping(r)
		r.igpu.script = func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			if err := begin(head); err != nil {
				return err
			}
			buf := []byte("{1}\n{2}\n")
			for _, c := range []job.Chunk{{Raw: buf[:4]}, {Raw: buf[4:]}} {
				if err := emit(c); err != nil {
					return err
				}
			}
			copy(buf, "XXXXXXXX") // they are valid no longer
			return emit(job.Chunk{Raw: []byte("{end}\n"), Last: true, Usage: job.Usage{Tokens: 2, Decode: time.Second}})
		}
	}, func(t *testing.T, r *rig) {
		j := chat()
		j.Client, j.PromptBytes, j.Target = "me", 2, "igpu"
		j.Original = &job.Original{Dialect: job.Ollama, Path: "/api/chat", Body: []byte(`{"model":"m","options":{"seed":1}}`)}
		for i := range 3 {
			s := new(bytesSink)
			if err := r.Run(t.Context(), j, s); err != nil || s.all.String() != "{1}\n{2}\n{end}\n" || s.last != "{end}\n" || s.head != head {
				t.Errorf("%v: %q, the last %q, %+v", err, s.all.String(), s.last, s.head)
			}
			if s.report.FromCache() != (i > 0) || s.report.Usage.Tokens != 2 || (s.report.TokensPerSecond() > 0) != (i == 0) {
				t.Errorf("got %+v", s.report)
			}
		}
		j.Stream = false
		if err := r.Run(t.Context(), j, new(sink)); err != nil || r.jobs() != 2 {
			t.Errorf("%v; a stream is made into one piece", err)
		}
	})
}

// bytesSink is a sink that wants bytes, and writes into those it gets, behind
// their end.
type bytesSink struct {
	sink
	all  strings.Builder
	last string
	head job.Head
}

func (s *bytesSink) Begin(h job.Head) error { s.head = h; return s.sink.Begin(h) }

func (s *bytesSink) Chunk(ctx context.Context, c job.Chunk, r *dispatch.Report) error {
	s.all.Write(c.Raw)
	if c.Last {
		s.last = string(c.Raw)
	}
	_ = append(c.Raw, "spliced"...)
	return s.sink.Chunk(ctx, c, r)
}

func TestEmbeddingsAreKept(t *testing.T) {
	scenario(t, func(r *rig) {
		keeping(r)
		r.igpu.script = func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
			_ = begin(job.Head{Status: 200})
			return emit(job.Chunk{Vectors: [][]float32{{1, 2}}, Last: true})
		}
	}, func(t *testing.T, r *rig) {
		for range 2 {
			j := job.Job{Kind: job.Embed, Model: "m", Client: "me", PromptBytes: 2, Content: job.Content{Input: []string{"hi"}}}
			j.Target = "igpu"
			s := &vectorSink{}
			if err := r.Run(t.Context(), j, s); err != nil || len(s.vectors) != 1 || s.vectors[0][1] != 2 {
				t.Errorf("%v: %v", err, s.vectors)
			}
		}
		if r.jobs() != 1 {
			t.Errorf("%d jobs were run", r.jobs())
		}
	})
}

type vectorSink struct {
	sink
	vectors [][]float32
}

func (s *vectorSink) Chunk(ctx context.Context, c job.Chunk, r *dispatch.Report) error {
	s.vectors = append(s.vectors, c.Vectors...)
	return s.sink.Chunk(ctx, c, r)
}

func TestModelChosenForTheClient(t *testing.T) {
	scenario(t, keeping, func(t *testing.T, r *rig) {
		j := fixed("hi")
		j.Model = ""
		expect(t, r, j, "ollama-igpu")
		if s := expect(t, r, j, "ollama-igpu"); !s.report.FromCache() || s.report.Model != "m" {
			t.Errorf("got %+v", s.report)
		}
	})
}

func TestFaultyConfigurationRefusesWhatIsKeptToo(t *testing.T) {
	scenario(t, keeping, func(t *testing.T, r *rig) {
		expect(t, r, fixed("hi"), "ollama-igpu")
		s := gpuAsleep()
		s.Refusal = job.Errorf(job.NoBackend, "faults")
		r.Configure(s)
		expectError(t, r, fixed("hi"), job.NoBackend, "faults")
	})
}

func TestClientGoneWhileItsAnswerIsRecalled(t *testing.T) {
	scenario(t, keeping, func(t *testing.T, r *rig) {
		expect(t, r, fixed("hi"), "ollama-igpu")
		gone := errors.New("gone")
		s := &sink{chunk: func(context.Context) error { return gone }}
		if err := r.Run(t.Context(), fixed("hi"), s); !errors.Is(err, job.Cancelled) || len(r.kept()) != 1 {
			t.Errorf("%v, %d entries", err, len(r.kept()))
		}
		synctest.Wait()
	})
}

// BenchmarkRecall is what an answer that is kept takes, beside a job that a
// server in memory answers at once.
func BenchmarkRecall(b *testing.B) {
	for _, c := range []struct {
		name   string
		change func(*rig)
	}{{"run", nil}, {"recalled", keeping}} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b, func(r *rig) {
				if c.change != nil {
					c.change(r)
				}
				for _, s := range []*server{r.npu, r.igpu, r.nvidia, r.cpu} {
					s.script = func(_ context.Context, begin func(job.Head) error, emit func(job.Chunk) error) error {
						_ = begin(job.Head{Status: 200})
						return emit(job.Chunk{Text: "a", Last: true})
					}
				}
			})
			j := fixed("hi")
			_ = r.Run(b.Context(), j, new(sink))
			b.ReportAllocs()
			for b.Loop() {
				if err := r.Run(b.Context(), j, new(sink)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
