package dispatch

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/cache"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/plan"
	"github.com/joulemux/joulemux/daemon/pull"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// flights are the answers under way that several may share.
type flights struct {
	cache *cache.Cache

	mu    sync.Mutex // guards the following, and what is in flights
	byKey map[flightKey]*flight
	// seen is by which backends was last judged what may be kept, and digests
	// are those of their models.
	seen    *backend.Backend
	digests map[string]bool
}

func newFlights(c *cache.Cache) *flights {
	return &flights{cache: c, byKey: make(map[flightKey]*flight)}
}

// flightKey is what jobs have in common that share an answer under way: what is
// asked, and by what it is decided where that runs. When each must have it is no
// part of that: no answer comes sooner than one that is under way.
type flightKey struct {
	cache.Key
	target, preferred        string
	class                    job.Class
	critical, efficient      bool
	maxLatency, maxPowerEach int64
}

func keyOf(k cache.Key, j *job.Job) flightKey {
	return flightKey{
		Key: k, target: j.Target, preferred: fmt.Sprint(j.Preferred), class: j.Class,
		critical: j.LatencyCritical, efficient: j.PreferPowerEfficiency,
		maxLatency: int64(j.MaxLatency), maxPowerEach: int64(j.MaxPower),
	}
}

// forget has answers forgotten whose weights no backend has any more.
func (f *flights) forget(backends backend.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var first *backend.Backend
	if len(backends) > 0 {
		first = &backends[0]
	}
	if first == f.seen {
		return
	}
	f.seen = first
	now := make(map[string]bool)
	for _, b := range backends {
		for _, m := range b.Facts.Models {
			now[m.Digest] = true
		}
	}
	for digest := range f.digests {
		if !now[digest] {
			f.cache.Only(now)
			break
		}
	}
	f.digests = now
}

// flight is one answer under way: a run whose sink it is, and those who follow.
// The run is nobody's own. It goes on as long as somebody wants the answer, and
// each client reads at his own speed, and to his own deadline.
type flight struct {
	home   *flights
	key    flightKey
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when the run has ended
	// most is how much is kept for who reads slowly or comes late. What is longer
	// is neither kept nor shared with more, and goes as fast as the slowest reads.
	most    int
	text    bool      // that is what is wanted, and no bytes
	arrived time.Time // the first who wanted it

	// Guarded by home's.
	news    *sync.Cond
	readers []*reader
	routed  []route.Decision
	begun   bool
	head    job.Head
	data    []byte // from gone on
	gone    int
	vectors [][]float32
	last    int // where the last chunk begins, or -1
	usage   job.Usage
	report  *Report
	firstAt time.Time
	queued  time.Duration // of the first attempt
	// fetching is how the model gets on for which all wait, and fetched how often
	// that was told.
	fetching pull.Progress
	fetched  int
	// failures are known when it has ended.
	failures []Failure
	ended    bool
	err      error
	panic    any
}

// reader is one who follows a flight.
type reader struct {
	at      int
	routed  int
	fetched int
	begun   bool
	last    bool
	first   bool // it is for him that the flight began
}

// board returns the answer that was given before or, without one, the flight
// that the job is to follow: one that is under way, or its own.
func (f *flights) board(ctx context.Context, r *run, k cache.Key, places []cache.Place) (*cache.Answer, cache.Place, *flight) {
	key := keyOf(k, &r.job)
	f.mu.Lock()
	defer f.mu.Unlock()
	if a, from, found := f.cache.Find(k, places); found {
		return a, from, nil
	}
	if shared := f.byKey[key]; shared != nil {
		f.cache.Joined()
		r.reader = &reader{}
		shared.readers = append(shared.readers, r.reader)
		return nil, cache.Place{}, shared
	}
	f.cache.Missed()
	r.reader = &reader{first: true}
	own := &flight{
		home: f, key: key, done: make(chan struct{}), most: f.cache.Largest(), text: r.job.Original == nil, arrived: r.job.Arrived,
		news: sync.NewCond(&f.mu), readers: []*reader{r.reader}, last: -1,
	}
	f.byKey[key] = own
	ctx, own.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	alone := &run{Dispatcher: r.Dispatcher, settings: r.settings, job: r.job, sink: own, turn: make(chan plan.Effect, 1)}
	go own.run(ctx, alone)
	return nil, cache.Place{}, own
}

// run has the answer made.
func (f *flight) run(ctx context.Context, r *run) {
	defer close(f.done)
	defer f.cancel(nil)
	defer context.AfterFunc(ctx, f.wake)()
	defer func() {
		if p := recover(); p != nil {
			r.Log.LogAttrs(ctx, slog.LevelError, "job panicked", slog.String("job", r.job.ID), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			f.end(job.Errorf(job.BackendFailed, "its answer cannot be read"), p, nil)
		}
	}()
	err := r.run(ctx)
	if err == nil {
		f.keep(r)
	}
	f.end(err, nil, r.failures)
}

func (f *flight) wake() {
	f.home.mu.Lock()
	defer f.home.mu.Unlock()
	f.news.Broadcast()
}

// keep keeps the answer, unless there is a reason not to: the weights may have
// been replaced meanwhile.
func (f *flight) keep(r *run) {
	f.home.mu.Lock()
	fit := f.last >= 0 && f.gone == 0 && f.head.Status == http.StatusOK && r.source.Digest != ""
	if r.job.Kind == job.Embed && f.text { // else nobody here knows what it ought to be
		fit = fit && len(f.vectors) == len(r.job.Content.Input)
	}
	f.home.mu.Unlock()
	b := r.Backends.Current().Find(r.decision.Backend)
	if !fit || b == nil || placeOf(b, r.source.Model, b.Model(r.source.Model)) != r.source {
		return
	}
	// Nothing is added any more. What is cut short, or no answer at all, is the
	// backend's mistake, and for those to see who have waited for it.
	if undivided := !r.job.Stream || r.job.Kind == job.Embed; undivided && !f.text && !json.Valid(f.data) {
		return
	}
	// What is kept has no room to grow.
	data := make([]byte, len(f.data))
	copy(data, f.data)
	f.home.cache.Keep(f.key.Key, r.source, &cache.Answer{
		Head: f.head, Data: data, Last: f.last, Vectors: f.vectors,
		Usage: job.Usage{PromptTokens: f.usage.PromptTokens, Tokens: f.usage.Tokens}, Backend: b.ID, Made: time.Now(),
	})
}

// end has those who follow know how it ended.
func (f *flight) end(err error, panicked any, failures []Failure) {
	f.home.mu.Lock()
	defer f.home.mu.Unlock()
	f.ended, f.err, f.panic, f.failures = true, err, panicked, failures
	f.closeLocked()
	f.news.Broadcast()
}

// closeLocked lets nobody else board.
func (f *flight) closeLocked() {
	if f.home.byKey[f.key] == f {
		delete(f.home.byKey, f.key)
	}
}

// Routed tells those who follow where the job went.
func (f *flight) Routed(d route.Decision) {
	f.home.mu.Lock()
	defer f.home.mu.Unlock()
	if len(f.routed) == 0 {
		f.queued = time.Since(f.arrived)
	}
	f.routed = append(f.routed, d)
	f.news.Broadcast()
}

// Fetching tells them how the model gets on for which they wait. Who reads slowly
// skips to the newest.
func (f *flight) Fetching(p pull.Progress) error {
	f.home.mu.Lock()
	defer f.home.mu.Unlock()
	f.fetching, f.fetched = p, f.fetched+1
	f.news.Broadcast()
	return nil
}

// Begin tells them that the answer begins.
func (f *flight) Begin(h job.Head) error {
	f.home.mu.Lock()
	defer f.home.mu.Unlock()
	f.begun, f.head, f.firstAt = true, h, time.Now()
	f.news.Broadcast()
	return nil
}

// Chunk tells them a piece of it.
func (f *flight) Chunk(ctx context.Context, c job.Chunk, r *Report) error {
	f.home.mu.Lock()
	defer f.home.mu.Unlock()
	if c.Last {
		f.last, f.usage, f.report, f.vectors = f.gone+len(f.data), c.Usage, r, c.Vectors
	}
	if f.text {
		f.data = append(f.data, c.Text...)
	} else {
		f.data = append(f.data, c.Raw...)
	}
	f.news.Broadcast()
	if f.gone+len(f.data) > f.most {
		f.closeLocked()
	}
	for !c.Last && len(f.data) > f.most && ctx.Err() == nil {
		if f.drop(); len(f.data) > f.most {
			f.news.Wait()
		}
	}
	return context.Cause(ctx)
}

// drop forgets what all have read.
func (f *flight) drop() {
	read := f.gone + len(f.data)
	for _, r := range f.readers {
		read = min(read, r.at)
	}
	if read > f.gone { // into new memory, for the old may be being read
		f.data, f.gone = slices.Clone(f.data[read-f.gone:]), read
	}
}

// fly follows a flight to its end, or the client's.
func (r *run) fly(ctx context.Context, f *flight) error {
	defer context.AfterFunc(ctx, f.wake)()
	aboard := true
	defer func() {
		if aboard { // the sink has panicked
			_, _ = f.leave(r.reader, job.Cancelled)
		}
	}()
	err := r.follow(ctx, f)
	aboard = false
	ended, last := f.leave(r.reader, err)
	if ended != nil && last { // of what would have been the job's own run
		err = ended
	}
	if f.landed() {
		if f.panic != nil {
			panic(f.panic)
		}
		if r.reader.first {
			r.failures = f.failures
		}
	}
	return err
}

// landed reports whether the run has ended, after which nothing changes.
func (f *flight) landed() bool {
	f.home.mu.Lock()
	defer f.home.mu.Unlock()
	return f.ended
}

// leave has a reader leave. The last to leave before the end ends the run, which
// ends with the error returned.
func (f *flight) leave(who *reader, why error) (err error, last bool) {
	f.home.mu.Lock()
	f.readers = slices.DeleteFunc(f.readers, func(other *reader) bool { return other == who })
	f.news.Broadcast()
	if len(f.readers) > 0 || f.ended {
		f.home.mu.Unlock()
		return nil, false
	}
	f.closeLocked()
	f.home.mu.Unlock()
	f.cancel(why)
	<-f.done
	return f.err, true
}

// follow hands on what there is of an answer as it comes.
func (r *run) follow(ctx context.Context, f *flight) error {
	for {
		n, ok := f.next(ctx, r.reader)
		if !ok {
			return context.Cause(ctx)
		}
		if waiter, tells := r.sink.(Waiter); tells && n.fetching != nil {
			if err := waiter.Fetching(*n.fetching); err != nil {
				return err
			}
		}
		for _, d := range n.routed {
			if !r.reader.first {
				d = route.Borrow(d.Backend, d.Class, d.Tier, "asked for by another job at the same time")
			}
			if r.reader.first { // the attempts are his
				r.attempts, r.queued = r.attempts+1, f.queued
			}
			r.decision = d
			r.sink.Routed(d)
		}
		if n.begins {
			if err := r.sink.Begin(f.head); err != nil {
				return err
			}
		}
		if len(n.data) > 0 {
			if err := r.sink.Chunk(ctx, r.piece(n.data), nil); err != nil {
				return err
			}
		}
		if n.report != nil {
			if err := r.arrive(ctx, f, n); err != nil {
				return err
			}
		}
		if n.ended {
			return f.err
		}
	}
}

// news is what a reader has not seen of a flight.
type news struct {
	fetching *pull.Progress // nil if there is none
	routed   []route.Decision
	begins   bool
	data     []byte
	last     []byte
	report   *Report // nil but with the last chunk
	ended    bool
}

// next waits for news, and reports whether there were any before ctx ended.
func (f *flight) next(ctx context.Context, r *reader) (n news, ok bool) {
	f.home.mu.Lock()
	defer f.home.mu.Unlock()
	for {
		if ctx.Err() != nil && !r.last { // who has all of it is answered
			return n, false
		}
		if f.fetched > r.fetched {
			n.fetching = new(f.fetching)
		}
		n.routed = f.routed[r.routed:]
		n.begins = f.begun && !r.begun
		end := f.gone + len(f.data)
		if f.last >= 0 {
			end = f.last
		}
		if !r.last {
			n.data = f.data[r.at-f.gone : end-f.gone]
			if f.last >= 0 {
				n.last, n.report = f.data[f.last-f.gone:], f.report
			}
		}
		n.ended = f.ended
		if n.fetching != nil || len(n.routed) > 0 || n.begins || len(n.data) > 0 || n.report != nil || n.ended {
			break
		}
		f.news.Wait()
	}
	if len(f.data) > f.most {
		f.news.Broadcast() // there may be room now
	}
	r.fetched, r.routed, r.begun, r.at, r.last = f.fetched, len(f.routed), f.begun, r.at+len(n.data), r.last || n.report != nil
	return n, true
}

// arrive hands on the last piece. What the answer took is told to the first, who
// had it made, and nothing to the others: it was spent once.
func (r *run) arrive(ctx context.Context, f *flight, n news) error {
	report := n.report
	r.job.Model = report.Model
	if !r.reader.first {
		r.now = r.Tiers.Look(ctx)
		report = &Report{
			ID: r.job.ID, Model: report.Model, Decision: r.decision, TierReason: report.TierReason, Usage: report.Usage,
			FirstToken: max(0, f.firstAt.Sub(r.job.Arrived)), Total: time.Since(r.job.Arrived), Cost: power.Cost{Quality: power.None},
		}
	}
	r.told, r.refused = report, f.head.Status >= http.StatusBadRequest
	last := r.piece(n.last)
	last.Vectors, last.Last, last.Usage = f.vectors, true, f.usage
	if err := r.sink.Chunk(ctx, last, report); err != nil {
		return err
	}
	if !r.reader.first {
		r.Ledger.Record(r.borrowed(report))
	}
	return nil
}
