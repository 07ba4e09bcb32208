// Package ledger is where costs are kept: what each job took, what backends,
// models and clients took per day, and what that teaches about the next job.
//
// It is one SQLite file, opened when the first job ends or somebody asks, and
// owned by one goroutine. Jobs never wait for it: an entry goes into a bounded
// queue, and from there to the disk within a second, with others that came
// meanwhile. A process that is killed loses no more than that second. Where
// the disk is full, read-only or absent, costs are kept in memory, and written
// when that works again; a file that is corrupt is set aside for a new one.
//
// The ledger holds no prompt and no answer, and has no place for one. It
// measures nothing: figures come from power/meter by way of dispatch.
package ledger

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/joulemux/joulemux/power"
)

// ErrNoJob says that a job is not in the ledger, or no longer.
var ErrNoJob = errors.New("no such job in the ledger")

// Keep is for how long things are kept.
type Keep struct {
	// Jobs is for how long each job is kept, and MostJobs how many are at most.
	Jobs     time.Duration
	MostJobs int
	// Days is for how long the sums of a day are kept, and what was learned of
	// a model that is no longer asked.
	Days time.Duration
}

const aDay = 24 * time.Hour

// DefaultKeep is 90 days or 100 000 jobs (some 40 MB), and five years of days.
func DefaultKeep() Keep {
	return Keep{Jobs: 90 * aDay, MostJobs: 100_000, Days: 5 * 365 * aDay}
}

// FileName is the ledger's file in its folder.
const FileName = "ledger.db"

// Ledger keeps costs. Make one with New, and Run it.
type Ledger struct {
	notes    chan note
	lost     atomic.Int64 // notes that the queue had no room for
	requests chan func(*state)
	learned  atomic.Pointer[map[subject]Learned]
	trouble  atomic.Pointer[error]
	owned    *state // by Run alone
}

// note is an entry, or else what holding a model takes, or else the tail of an
// entry.
type note struct {
	entry *Entry
	held  *held
	id    string
	tail  power.Energy
}

// held is what a device draws that only holds a model.
type held struct {
	of   subject
	draw power.Power
	at   time.Time
}

// AnyModel is in the place of the model where something is learned of a backend
// whatever the model. None has that name.
const AnyModel = ""

// maxNotes is how many notes wait for the owner, who takes them at once unless
// the disk holds it up: room for a hundred jobs per second and a disk that
// takes five.
const maxNotes = 512

// New returns a ledger in a folder, or in memory alone if that is "".
func New(folder string, keep Keep, log *slog.Logger) *Ledger {
	l := &Ledger{notes: make(chan note, maxNotes), requests: make(chan func(*state))}
	l.owned = newState(l, folder, keep, log)
	return l
}

// Run owns the file until ctx is done, and then writes what is left. Whatever
// else takes a context waits for it.
func (l *Ledger) Run(ctx context.Context) error {
	s := l.owned
	defer s.close()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case n := <-l.notes:
			s.take(n)
		case request := <-l.requests:
			s.takeAll()
			request(s)
		case <-s.timer.C:
			s.flush()
		}
	}
}

// do has the owner run f, once it has taken all that was recorded before.
func (l *Ledger) do(ctx context.Context, f func(*state)) error {
	done := make(chan struct{})
	request := func(s *state) {
		defer close(done)
		f(s)
	}
	select {
	case l.requests <- request:
		<-done
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Record adds a job that has ended. It never waits.
func (l *Ledger) Record(e Entry) { l.put(note{entry: &e}) }

// Tail adds what a recorded job's device took on its account after the last
// token. It replaces a tail that was told before, and never waits.
func (l *Ledger) Tail(id string, tail power.Energy) { l.put(note{id: id, tail: tail}) }

// Held adds what a backend's device was seen to draw while it held a model and
// worked on nothing, on battery or on line power: that is learned of AnyModel. It
// never waits.
func (l *Ledger) Held(backend string, onBattery bool, draw power.Power) {
	l.put(note{held: &held{subject{clip(backend, maxWord), AnyModel, onBattery}, draw, time.Now()}})
}

// put queues a note, in the place of the oldest if need be.
func (l *Ledger) put(n note) {
	for {
		select {
		case l.notes <- n:
			return
		default:
		}
		select {
		case <-l.notes:
			l.lost.Add(1)
		default:
		}
	}
}

// Open opens the file now. It need not be called: the first entry, the first
// query, or the first call of Learned does the same.
func (l *Ledger) Open(ctx context.Context) error {
	if err := l.do(ctx, func(s *state) { s.open() }); err != nil {
		return err
	}
	return l.Trouble()
}

// Flush returns when all that was recorded before is on the disk, or says why
// it is not.
func (l *Ledger) Flush(ctx context.Context) error {
	if err := l.do(ctx, func(s *state) { s.flush() }); err != nil {
		return err
	}
	return l.Trouble()
}

// Trouble returns why costs are kept in memory, or nil if they are in the file.
func (l *Ledger) Trouble() error {
	if err := l.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Learned returns what was learned of a model on a backend, on battery or on
// line power, and whether that is anything. It costs a load and a look into a
// map. Before the file was opened nothing is known: then it is being opened
// when Learned returns.
func (l *Ledger) Learned(backend, model string, onBattery bool) (Learned, bool) {
	all := l.learned.Load()
	if all == nil {
		select {
		case l.requests <- func(s *state) { s.open() }:
		default: // busy, and therefore about to
		}
		return Learned{}, false
	}
	known, ok := (*all)[subject{backend, model, onBattery}]
	return known, ok
}

// Totals returns what the jobs took that ended on the days which have a moment
// in [from, to), in the order of their keys. A zero time leaves its end open.
// While there is Trouble, jobs that are only in the file may be missing.
func (l *Ledger) Totals(ctx context.Context, from, to time.Time, by Grouping) (all []Total, err error) {
	err = l.do(ctx, func(s *state) { all = s.totals(spanOf(from, to), by) })
	return all, err
}

// Job returns the latest entry of a job, or ErrNoJob.
func (l *Ledger) Job(ctx context.Context, id string) (Entry, error) {
	var found []Entry
	id = clip(id, maxWord)
	named := func(e Entry) bool { return e.ID == id }
	if err := l.do(ctx, func(s *state) { found = s.jobs(1, named, "WHERE id = ?", id) }); err != nil {
		return Entry{}, err
	}
	if len(found) == 0 {
		return Entry{}, ErrNoJob
	}
	return found[0], nil
}

// Answers returns the last n jobs that wrote a whole answer, the latest first,
// without those of which is not known what they asked for.
func (l *Ledger) Answers(ctx context.Context, n int) (latest []Entry, err error) {
	n = min(max(n, 0), MostRecent)
	err = l.do(ctx, func(s *state) { latest = s.jobs(n, Entry.answered, answered) })
	return latest, err
}

// MostRecent is how many entries Recent and Answers return at most.
const MostRecent = 1000

// Recent returns the last n jobs that were recorded, the latest first.
func (l *Ledger) Recent(ctx context.Context, n int) (latest []Entry, err error) {
	n = min(max(n, 0), MostRecent)
	any := func(Entry) bool { return true }
	err = l.do(ctx, func(s *state) { latest = s.jobs(n, any, "") })
	return latest, err
}
