package ledger

import (
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"time"
)

// errNoFolder is the trouble of a ledger that was given no folder.
var errNoFolder = errors.New("there is no folder for it")

const (
	// flushAfter is how long an entry waits for others to be written with it.
	flushAfter = time.Second
	// flushMost is how many wait at most: where jobs end faster than that, as those
	// do that are answered from the cache, the file is most of what they take.
	flushMost = 256
	// patience is how long the daemon that this one replaces may take to let
	// go of the file.
	patience = time.Second
)

// maxSubjects is of how many models on backends something is learned.
const maxSubjects = 500

// subject is what something is learned of.
type subject struct {
	backend, model string
	onBattery      bool
}

// subjectOf returns what e teaches about.
func subjectOf(e Entry) subject { return subject{e.Backend, e.Model, e.OnBattery} }

// state is what the owner of the ledger knows.
type state struct {
	ledger *Ledger
	path   string // "" for none
	keep   Keep
	log    *slog.Logger

	file    *file // nil while it is not open
	opened  bool  // at least tried
	pending *pending
	fresh   int         // notes since the last flush
	timer   *time.Timer // runs while there are any
	learned map[subject]Learned
	changed map[subject]Learned // and not written yet
}

func newState(l *Ledger, folder string, keep Keep, log *slog.Logger) *state {
	s := &state{
		ledger: l, keep: keep, log: log, pending: newPending(),
		timer: time.NewTimer(flushAfter), learned: map[subject]Learned{}, changed: map[subject]Learned{},
	}
	s.timer.Stop()
	if folder != "" {
		s.path = filepath.Join(folder, FileName)
	}
	return s
}

// take takes a note, and has it written before long.
func (s *state) take(n note) {
	if !s.opened {
		s.open()
	}
	switch {
	case n.entry != nil:
		e := n.entry.normal(time.Now())
		s.pending.record(e)
		s.learn(subjectOf(e), func(l Learned) Learned { return l.With(e) })
	case n.held != nil:
		s.learn(n.held.of, func(l Learned) Learned { return l.withHeld(n.held.draw, n.held.at) })
	default:
		s.pending.tail(clip(n.id, maxWord), n.tail)
	}
	s.fresh++
	switch s.fresh {
	case 1:
		s.timer.Reset(flushAfter)
	case flushMost:
		s.flush()
	}
}

// takeAll takes what is queued.
func (s *state) takeAll() {
	for {
		select {
		case n := <-s.ledger.notes:
			s.take(n)
		default:
			return
		}
	}
}

// learn learns more of a subject. Readers keep the map that they have, so a new
// one takes its place.
func (s *state) learn(of subject, more func(Learned) Learned) {
	before, known := s.learned[of]
	after := more(before)
	if after == before || !known && len(s.learned) >= maxSubjects {
		return
	}
	s.learned = maps.Clone(s.learned)
	s.learned[of], s.changed[of] = after, after
	s.publish()
}

func (s *state) publish() {
	all := s.learned
	s.ledger.learned.Store(&all)
}

// open opens the file unless it is open, and takes in what was learned.
func (s *state) open() {
	if s.file != nil && s.file.gone() {
		s.closeFile()
	}
	if s.file != nil {
		return
	}
	wait := patience
	if s.opened {
		wait = 0
	}
	s.opened = true
	defer s.publish()
	if s.path == "" {
		s.fail(errNoFolder)
		return
	}
	f, known, err := openLearned(s.path, wait)
	if spoilt(err) && s.setAside(err) {
		f, known, err = openLearned(s.path, wait)
	}
	if err != nil {
		s.fail(err)
		return
	}
	s.file = f
	s.merge(known)
}

// openLearned opens the file and reads what was learned.
func openLearned(path string, patience time.Duration) (*file, map[subject]Learned, error) {
	f, err := openFile(path, patience)
	if err != nil {
		return nil, nil, err
	}
	known, err := f.learned()
	if err != nil {
		f.close()
		return nil, nil, err
	}
	return f, known, nil
}

// merge takes in what the file knows. What was learned without it is written
// where it is based on more.
func (s *state) merge(known map[subject]Learned) {
	all := maps.Clone(known)
	for of, l := range s.learned {
		merged := better(known[of], l)
		all[of] = merged
		if merged != known[of] {
			s.changed[of] = merged
		}
	}
	s.learned = all
}

// setAside makes way for a new file.
func (s *state) setAside(why error) bool {
	aside, err := setAside(s.path, time.Now())
	if err != nil {
		s.fail(err)
		return false
	}
	s.log.Warn("the ledger is corrupt; it is set aside and a new one begun",
		slog.String("aside", aside), slog.Any("err", why))
	return true
}

// try has f use the file, in another file if this one turns out to be spoilt,
// and reports whether that went well.
func (s *state) try(f func(*file) error) bool {
	for again := false; ; again = true {
		s.open()
		if s.file == nil {
			return false
		}
		err := f(s.file)
		if err == nil {
			return true
		}
		s.closeFile() // whatever is wrong with it, it will be opened anew
		if again || !spoilt(err) {
			s.fail(err)
			return false
		}
		if !s.setAside(err) {
			return false
		}
	}
}

// fail notes that the file cannot be used, and says so once.
func (s *state) fail(err error) {
	if s.ledger.Trouble() == nil {
		s.log.Warn("the ledger cannot be used; costs are kept in memory",
			slog.String("file", s.path), slog.Any("err", err))
	}
	s.ledger.trouble.Store(&err)
}

// recovered notes that the file holds all there is.
func (s *state) recovered() {
	if s.ledger.Trouble() == nil {
		return
	}
	s.log.Info("the ledger is written again",
		slog.Int("jobs", len(s.pending.entries)), slog.Int("jobs_in_sums_only", s.pending.dropped))
	s.ledger.trouble.Store(nil)
}

// written reports whether the file holds all there is, if it can be used.
func (s *state) written() bool { return s.pending.empty() && len(s.changed) == 0 }

// flush writes what is pending. It is tried again with the next note, or when
// somebody asks.
func (s *state) flush() {
	s.timer.Stop()
	s.fresh = 0
	if lost := s.ledger.lost.Swap(0); lost > 0 {
		s.log.Warn("the ledger lost what came while the disk was slow", slog.Int64("notes", lost))
	}
	if s.written() {
		return
	}
	write := func(f *file) error { return f.write(s.pending, s.changed, s.keep) }
	if s.try(write) {
		s.recovered()
		s.pending = newPending()
		s.changed = map[subject]Learned{}
	}
}

// close writes what is left, and gives the file back.
func (s *state) close() {
	s.takeAll()
	s.flush()
	s.closeFile()
}

func (s *state) closeFile() {
	if s.file != nil {
		s.file.close()
		s.file = nil
	}
}

// read has f read the file, after what is pending was written, and reports
// whether that went well. What f read before a failure is worth nothing.
func (s *state) read(f func(*file) error) bool {
	s.flush()
	ok := s.try(f)
	if ok && s.written() {
		s.recovered()
	}
	return ok
}

// totals returns sums of what is in the file and of what is pending.
func (s *state) totals(days span, by Grouping) []Total {
	var all totals
	if !s.read(func(f *file) (err error) {
		all, err = f.totals(days, by)
		return err
	}) {
		all = totals{}
	}
	for a, sum := range s.pending.sums {
		if days.contains(a.day) {
			all.add(a.key(by), a.quality, sum)
		}
	}
	for a, paid := range s.pending.paid {
		if days.contains(a.day) {
			all.pay(a.key(by), paid)
		}
	}
	return all.sorted()
}

// jobs returns those that are pending and wanted, the latest first, and then
// those that a condition leaves of the file, n in all.
func (s *state) jobs(n int, wanted func(Entry) bool, condition string, parameters ...any) []Entry {
	var older []Entry
	if !s.read(func(f *file) (err error) {
		older, err = f.jobs(condition+" ORDER BY n DESC LIMIT ?", append(parameters, n)...)
		return err
	}) {
		older = nil
	}
	var latest []Entry
	for _, e := range slices.Backward(s.pending.entries) {
		if wanted(e) {
			latest = append(latest, e)
		}
	}
	latest = append(latest, older...)
	return latest[:min(n, len(latest))]
}
