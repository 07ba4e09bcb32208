package ledger

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/ncruces/go-sqlite3"
)

// file is an open ledger. Whatever of it returns an error has changed nothing.
type file struct {
	db *sqlite3.Conn
	// statements are kept prepared, by their text.
	statements map[string]*sqlite3.Stmt
	pruned     string // the day on which it was done last
	path       string
	info       os.FileInfo
}

// settings are how the file is used.
//
// With a write-ahead log a transaction is one write and one fdatasync, a
// rollback journal needs three of either and four times the processor.
// Synchronous means that each transaction reaches the disk: neither the sudden
// end of the process nor that of the power loses any of it. With such a log
// "extra" is "full", but for the moment in which a new file is given one: with
// "full", the power may bring that back as it was before.
//
// The lock is exclusive, so that the log's index is our own memory and not a
// file that is mapped: a page of such a file that cannot be had, on a disk
// that is full, is a SIGBUS and no error. It is also how a second daemon finds
// the ledger taken.
const settings = `
	PRAGMA locking_mode = EXCLUSIVE;
	PRAGMA synchronous = EXTRA;
	PRAGMA journal_mode = WAL;
	PRAGMA cache_size = -256;
	PRAGMA wal_autocheckpoint = 256;
	PRAGMA journal_size_limit = 1048576;
	PRAGMA temp_store = MEMORY;
	PRAGMA trusted_schema = OFF;`

// mostMemory bounds what the library may take, which is a mebibyte or two.
const mostMemory = 32 << 20

// openFile opens the ledger at a path, which is made if it is missing. It
// waits so long for somebody else who has it open.
func openFile(path string, patience time.Duration) (*file, error) {
	info, err := touch(path)
	if err != nil {
		return nil, err
	}
	db, err := sqlite3.OpenContext(sqlite3.WithMaxMemory(context.Background(), mostMemory), path)
	if err != nil {
		return nil, err
	}
	if err := db.BusyTimeout(patience); err != nil {
		_ = db.Close()
		return nil, err
	}
	return newFile(db, path, info)
}

// newFile makes a connection a ledger.
func newFile(db *sqlite3.Conn, path string, info os.FileInfo) (*file, error) {
	f := &file{db: db, statements: map[string]*sqlite3.Stmt{}, path: path, info: info}
	err := db.Exec(settings)
	if err == nil {
		err = migrate(db, migrations())
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// touch makes the file, and its folder, for nobody else to read.
func touch(path string) (os.FileInfo, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

// gone reports whether the file's name stands for another by now, or for none:
// somebody who removes a ledger wants a new one, and not to lose what comes.
func (f *file) gone() bool {
	info, err := os.Stat(f.path)
	return err != nil || !os.SameFile(info, f.info)
}

// close gives the file back. What goes wrong then went wrong before, or does
// no harm: the log is taken in when the file is opened again.
func (f *file) close() {
	for _, s := range f.statements {
		_ = s.Close()
	}
	_ = f.db.Close()
}

// prepare returns the statement of a text.
func (f *file) prepare(text string) (*sqlite3.Stmt, error) {
	if s := f.statements[text]; s != nil {
		return s, nil
	}
	s, _, err := f.db.PrepareFlags(text, sqlite3.PREPARE_PERSISTENT)
	if err != nil {
		return nil, err
	}
	f.statements[text] = s
	return s, nil
}

// each calls yield with each row that a query yields.
func (f *file) each(query string, yield func(*sqlite3.Stmt), parameters ...any) error {
	s, err := f.prepare(query)
	if err != nil {
		return err
	}
	defer func() { _ = s.Reset() }() // it repeats what Err says
	if err := bind(s, parameters...); err != nil {
		return err
	}
	for s.Step() {
		yield(s)
	}
	return s.Err()
}

// do runs a statement.
func (f *file) do(text string, parameters ...any) error {
	s, err := f.prepare(text)
	if err != nil {
		return err
	}
	if err := bind(s, parameters...); err != nil {
		return err
	}
	return s.Exec()
}

// write adds what is pending, and what was learned of the models in changed,
// in one transaction.
func (f *file) write(p *pending, changed map[subject]Learned, keep Keep) error {
	if err := f.db.Exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	today := day(time.Now())
	err := f.writeAll(p, changed)
	if err == nil && f.pruned != today {
		err = f.prune(keep, time.Now())
	}
	if err == nil {
		err = f.db.Exec("COMMIT")
	}
	if err != nil {
		_ = f.db.Exec("ROLLBACK") // where the failure did not do that already
		return err
	}
	f.pruned = today
	return nil
}

func (f *file) writeAll(p *pending, changed map[subject]Learned) error {
	for id, tail := range p.tails { // of jobs that are there already, and of none that comes now
		if err := f.tail(id, tail); err != nil {
			return err
		}
	}
	for _, e := range p.entries {
		if err := f.do(insertJob, jobValues(e)...); err != nil {
			return err
		}
	}
	for a, s := range p.sums {
		if err := f.add(a, s); err != nil {
			return err
		}
	}
	for a, paid := range p.paid {
		if err := f.do(addPayment, a.day, a.backend, a.model, a.client, a.currency, paid.Jobs, paid.Unknown, paid.Nano); err != nil {
			return err
		}
	}
	for of, l := range changed {
		if err := f.save(of, l); err != nil {
			return err
		}
	}
	return nil
}

// add adds to an account.
func (f *file) add(a account, s Sum) error {
	return f.do(addToAccount, slices.Concat([]any{a.day, a.backend, a.model, a.client, string(a.quality)}, sumValues(s))...)
}

// tail sets the tail of a job, if it is still there.
func (f *file) tail(id string, tail power.Energy) error {
	var (
		n   int64
		was power.Energy
		a   account
	)
	err := f.each(findTail, func(s *sqlite3.Stmt) {
		r := row{s: s}
		n = r.int()
		a = account{r.text(), r.text(), r.text(), r.text(), power.Quality(r.text())}
		was = r.energy()
	}, id)
	if err != nil || n == 0 || !(power.Cost{Quality: a.quality}).Known() {
		return err
	}
	if err := f.do(setTail, int64(tail), n); err != nil {
		return err
	}
	return f.add(a, Sum{Tail: tail - was})
}

// prune forgets what is old.
func (f *file) prune(keep Keep, now time.Time) error {
	return errors.Join(
		f.do(pruneOldJobs, now.Add(-keep.Jobs).UnixNano()),
		f.do(pruneMostJobs, keep.MostJobs),
		f.do(pruneAccounts, day(now.Add(-keep.Days))),
		f.do(prunePayments, day(now.Add(-keep.Days))),
		f.do(pruneFigures, now.Add(-keep.Days).UnixNano()),
	)
}

// totals returns what the file holds of some days.
func (f *file) totals(days span, by Grouping) (totals, error) {
	all := totals{}
	err := f.each(sumAccounts(by), func(s *sqlite3.Stmt) {
		r := row{s: s}
		all.add(r.text(), power.Quality(r.text()), r.sum())
	}, days.first, days.last)
	if err != nil {
		return all, err
	}
	err = f.each(sumPayments(by), func(s *sqlite3.Stmt) {
		r := row{s: s}
		all.pay(r.text(), Payment{Currency: r.text(), Jobs: r.int(), Unknown: r.int(), Nano: r.int()})
	}, days.first, days.last)
	return all, err
}

// jobs returns the jobs that a condition leaves, in its order.
func (f *file) jobs(condition string, parameters ...any) ([]Entry, error) {
	var all []Entry
	err := f.each("SELECT "+jobColumns+" FROM job "+condition, func(s *sqlite3.Stmt) {
		all = append(all, readJob(s))
	}, parameters...)
	return all, err
}

// save writes what was learned of one model on one backend.
func (f *file) save(of subject, l Learned) error {
	for name, m := range l.figures() {
		if m.count == 0 {
			continue
		}
		if err := f.do(saveFigure, of.backend, of.model, of.onBattery, name, m.value, m.count, m.seen.UnixNano()); err != nil {
			return err
		}
	}
	return nil
}

// learned returns all that was learned.
func (f *file) learned() (map[subject]Learned, error) {
	all := map[subject]Learned{}
	err := f.each(loadFigures, func(s *sqlite3.Stmt) {
		r := row{s: s}
		of := subject{r.text(), r.text(), r.int() != 0}
		name, m := r.text(), mean{value: r.real(), count: int(r.int()), seen: r.time()}
		l := all[of]
		if figure := l.figures()[name]; figure != nil && m.sane() {
			*figure = m
			all[of] = l
		}
	})
	return all, err
}

// sane reports whether a mean that was read can be one.
func (m mean) sane() bool { return m.count > 0 && m.value >= 0 && !math.IsInf(m.value, 1) }

// spoilt reports whether an error says that the file is no ledger any more.
// Nothing that is recorded makes an error in our own language: one says that
// the tables are not what they were.
func spoilt(err error) bool {
	return errors.Is(err, sqlite3.CORRUPT) || errors.Is(err, sqlite3.NOTADB) ||
		errors.Is(err, sqlite3.ERROR) && !errors.Is(err, errMigration)
}

// mostAside is how many spoilt files are kept for whoever wants to look at
// them.
const mostAside = 3

const asideMark = ".corrupt-"

// setAside renames a spoilt file, with its log, and returns its new name.
func setAside(path string, now time.Time) (string, error) {
	aside := path + asideMark + now.UTC().Format("20060102T150405.000Z")
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("set the corrupt file aside: %w", err)
	}
	// Left behind, the log would be taken for the new file's.
	if err := os.Rename(path+"-wal", aside+"-wal"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("set the corrupt file's log aside: %w", err)
	}
	return aside, thin(path)
}

// thin removes the oldest of the files that were set aside.
func thin(path string) error {
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	var aside []string
	for _, n := range names { // by name, which is by age
		if strings.HasPrefix(n.Name(), filepath.Base(path)+asideMark) && !strings.HasSuffix(n.Name(), "-wal") {
			aside = append(aside, filepath.Join(filepath.Dir(path), n.Name()))
		}
	}
	for len(aside) > mostAside {
		_, _ = os.Remove(aside[0]), os.Remove(aside[0]+"-wal")
		aside = aside[1:]
	}
	return nil
}
