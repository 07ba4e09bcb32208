package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
	"github.com/ncruces/go-sqlite3"
)

// journal is where a ledger's log goes in a test.
type journal struct {
	mu sync.Mutex
	bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.Buffer.Write(p)
}

func (j *journal) lines(level slog.Level) (found []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.String()) {
		if strings.Contains(line, "level="+level.String()) {
			found = append(found, line)
		}
	}
	return found
}

// running is a ledger that runs, and what it logs.
type running struct {
	*Ledger
	log  *journal
	stop func()
}

// forever keeps everything: the days of these tests are long gone.
func forever() Keep {
	const century = 100 * 365 * aDay
	return Keep{Jobs: century, MostJobs: 1_000_000, Days: century}
}

// run runs a ledger in a folder until the test ends or stops it.
func run(t *testing.T, folder string, keep Keep) running {
	t.Helper()
	log := &journal{}
	l := New(folder, keep, slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Cleanup(stop)
	return running{l, log, stop}
}

func (r running) totals(t *testing.T, by Grouping) []Total {
	t.Helper()
	all, err := r.Totals(t.Context(), time.Time{}, time.Time{}, by)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// flush has all that was recorded written.
func (r running) flush(t *testing.T) {
	t.Helper()
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// openRaw opens a ledger's file beside the ledger.
func openRaw(t *testing.T, folder string) *sqlite3.Conn {
	t.Helper()
	db, err := sqlite3.Open(filepath.Join(folder, FileName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// query returns the first column of the first row.
func query(t *testing.T, db *sqlite3.Conn, text string) string {
	t.Helper()
	s, _, err := db.Prepare(text)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.Step() {
		t.Fatalf("%s: no row, %v", text, s.Err())
	}
	return s.ColumnText(0)
}

func TestAnEntryComesBackAsItWas(t *testing.T) {
	folder := t.TempDir()
	l := run(t, folder, forever())
	l.Record(answer())
	l.stop()
	again := run(t, folder, forever())
	got, err := again.Job(t.Context(), "a")
	if err != nil || !got.Ended.Equal(noon) {
		t.Fatalf("ended %v, %v", got.Ended, err)
	}
	if want := answer(); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestAJobThatIsNotThere(t *testing.T) {
	l := run(t, t.TempDir(), forever())
	if _, err := l.Job(t.Context(), "nobody"); !errors.Is(err, ErrNoJob) {
		t.Errorf("got %v", err)
	}
}

func TestRecentHasTheLatestFirst(t *testing.T) {
	l := run(t, t.TempDir(), forever())
	for i := range 10 {
		l.Record(but(func(e *Entry) { e.ID = fmt.Sprint(i) }))
	}
	latest, err := l.Recent(t.Context(), 3)
	if err != nil || len(latest) != 3 || latest[0].ID != "9" || latest[2].ID != "7" {
		t.Errorf("got %v, %v", latest, err)
	}
}

func TestAnswersAreOfWhoWroteOne(t *testing.T) {
	l := run(t, t.TempDir(), forever())
	for id, change := range []func(*Entry){
		func(*Entry) {},
		func(e *Entry) { e.Kind = job.Chat },
		func(e *Entry) { e.Kind = job.Embed },
		func(e *Entry) { e.Failed = job.Cancelled },
		func(e *Entry) { e.Tokens = 0 },
		func(e *Entry) { e.Kind = "" },
		func(*Entry) {},
	} {
		l.Record(but(func(e *Entry) { e.ID = fmt.Sprint(id); change(e) }))
		if id == 3 {
			l.flush(t) // the others are only pending
		}
	}
	for n, want := range map[int]string{2: "6 1", 500: "6 1 0"} {
		all, err := l.Answers(t.Context(), n)
		var ids []string
		for _, e := range all {
			ids = append(ids, e.ID)
		}
		if got := strings.Join(ids, " "); err != nil || got != want {
			t.Errorf("the last %d are %s, %v; want %s", n, got, err, want)
		}
	}
}

func TestTotalsKeepQualitiesApart(t *testing.T) {
	l := run(t, t.TempDir(), forever())
	for _, q := range []power.Quality{power.Measured, power.Measured, power.Derived, power.Estimated, power.Unknown, power.None} {
		l.Record(but(func(e *Entry) { e.Cost.Quality = q }))
	}
	l.Record(but(func(e *Entry) { e.Failed = job.Cancelled }))
	one := sumOf(answer())
	failed := one
	failed.Failed = 1
	worthless := Sum{Jobs: 1, PromptTokens: 50, Tokens: 100}
	want := Total{
		Measured: one.Plus(one).Plus(failed), Derived: one, Estimated: one, Unknown: worthless, None: worthless,
	}
	got := l.totals(t, Everything)
	if len(got) != 1 || !reflect.DeepEqual(got[0], want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
	if all := got[0].All(); all.Jobs != 7 || all.Tokens != 700 || all.Energy != 0 {
		t.Errorf("all of it is %+v", all)
	}
}

func TestTotalsAreGrouped(t *testing.T) {
	l := run(t, t.TempDir(), forever())
	for i := range 12 {
		l.Record(but(func(e *Entry) {
			e.Backend = fmt.Sprint("backend-", i%2)
			e.Model = fmt.Sprint("model-", i%3)
			e.Client = fmt.Sprint("client-", i%4)
			e.Ended = noon.AddDate(0, 0, i%6)
		}))
	}
	tests := []struct {
		by    Grouping
		first string
		n     int
	}{
		{Everything, "", 1}, {ByBackend, "backend-0", 2}, {ByModel, "model-0", 3}, {ByClient, "client-0", 4}, {ByDay, "2026-03-14", 6},
	}
	for _, tt := range tests {
		got := l.totals(t, tt.by)
		if len(got) != tt.n || got[0].Key != tt.first {
			t.Errorf("by %q: %d of them, the first %q", tt.by, len(got), got[0].Key)
			continue
		}
		for _, total := range got {
			if total.Measured.Jobs != int64(12/tt.n) {
				t.Errorf("by %q: %q has %d jobs, want %d", tt.by, total.Key, total.Measured.Jobs, 12/tt.n)
			}
		}
	}
}

func TestTotalsAreOfWholeDays(t *testing.T) {
	l := run(t, t.TempDir(), forever())
	for i := range 5 { // noon of the 14th to the 18th
		l.Record(but(func(e *Entry) { e.Ended = noon.AddDate(0, 0, i) }))
	}
	midnight := time.Date(2026, 3, 15, 0, 0, 0, 0, time.Local)
	tests := []struct {
		name     string
		from, to time.Time
		jobs     int64
	}{
		{"no ends", time.Time{}, time.Time{}, 5},
		{"one whole day", midnight, midnight.AddDate(0, 0, 1), 1},
		{"from the middle of a day, all of it", noon.Add(time.Hour), time.Time{}, 5},
		{"to the middle of a day, all of it", time.Time{}, noon.Add(-time.Hour), 1},
		{"to midnight, none of the day", time.Time{}, midnight, 1},
		{"nothing at all", midnight.AddDate(1, 0, 0), time.Time{}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := l.Totals(t.Context(), tt.from, tt.to, Everything)
			if err != nil {
				t.Fatal(err)
			}
			var jobs int64
			for _, total := range got {
				jobs += total.Measured.Jobs
			}
			if jobs != tt.jobs {
				t.Errorf("%d jobs, want %d", jobs, tt.jobs)
			}
		})
	}
}

func TestATailIsAddedOnce(t *testing.T) {
	tests := []struct {
		name           string
		between, after func(t *testing.T, l running)
	}{
		{"while the entry waits", func(*testing.T, running) {}, func(*testing.T, running) {}},
		{"when it was written", func(t *testing.T, l running) { t.Helper(); l.flush(t) }, func(*testing.T, running) {}},
		{"and is written itself", func(t *testing.T, l running) { t.Helper(); l.flush(t) }, func(t *testing.T, l running) { t.Helper(); l.flush(t) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := run(t, t.TempDir(), forever())
			l.Record(answer())
			tt.between(t, l)
			l.Tail("a", 80*power.Joule)
			l.Tail("nobody", 80*power.Joule)
			tt.after(t, l)
			l.Tail("a", 50*power.Joule) // it was told wrong
			e, err := l.Job(t.Context(), "a")
			if err != nil || e.Cost.Tail != 50*power.Joule {
				t.Errorf("the job has a tail of %v, %v", e.Cost.Tail, err)
			}
			if got := l.totals(t, Everything)[0].Measured; got.Tail != 50*power.Joule || got.Jobs != 1 {
				t.Errorf("the sum is %+v", got)
			}
		})
	}
}

func TestATailToldBeforeItsJobIsNoNews(t *testing.T) {
	l := run(t, t.TempDir(), forever())
	l.Tail("a", 20*power.Joule)
	l.Record(but(func(e *Entry) { e.Cost.Tail = 50 * power.Joule }))
	l.flush(t)
	if got := l.totals(t, Everything)[0].Measured; got.Tail != 50*power.Joule {
		t.Errorf("the sum is %+v", got)
	}
}

func TestALongIdIsFoundAgain(t *testing.T) {
	l := run(t, t.TempDir(), forever())
	long := strings.Repeat("id", maxWord)
	l.Record(but(func(e *Entry) { e.ID = long }))
	l.flush(t)
	l.Tail(long, power.Joule)
	if e, err := l.Job(t.Context(), long); err != nil || e.Cost.Tail != power.Joule {
		t.Errorf("its tail is %v, %v", e.Cost.Tail, err)
	}
}

func TestATailOfAnUnknownCostIsUnknown(t *testing.T) {
	l := run(t, t.TempDir(), forever())
	l.Record(but(func(e *Entry) { e.Cost.Quality = power.Unknown }))
	l.Tail("a", power.Joule)
	l.flush(t)
	l.Tail("a", power.Joule)
	if got := l.totals(t, Everything)[0].Unknown; got.Tail != 0 {
		t.Errorf("the sum is %+v", got)
	}
}

func TestWhatWasLearnedIsKnownAgain(t *testing.T) {
	folder := t.TempDir()
	l := run(t, folder, forever())
	for range 3 {
		l.Record(answer())
	}
	l.flush(t)
	want, ok := l.Learned("ollama-igpu", "qwen2.5:0.5b", true)
	if !ok || want.TokenEnergy.Count() != 3 {
		t.Fatalf("learned %+v, %v", want, ok)
	}
	l.stop()

	again := run(t, folder, forever())
	if _, ok := again.Learned("ollama-igpu", "qwen2.5:0.5b", true); ok {
		t.Error("known before the file was opened")
	}
	if err := again.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, ok := again.Learned("ollama-igpu", "qwen2.5:0.5b", true)
	if !ok || got != want {
		t.Errorf("got  %+v, %v\nwant %+v", got, ok, want)
	}
	if _, ok := again.Learned("ollama-igpu", "qwen2.5:0.5b", false); ok {
		t.Error("what was learned on battery is said of line power")
	}
}

func TestWhatHoldingTakesIsKeptWithoutAJob(t *testing.T) {
	folder := t.TempDir()
	l := run(t, folder, forever())
	long := strings.Repeat("b", 2*maxWord)
	for _, watts := range []power.Power{30, 8, 24} { // less is believed at once, and more by a sixteenth
		l.Held(long, false, watts*power.Watt)
	}
	l.Held(long, false, 0)           // nothing is no draw
	l.Held(long, true, 1<<62)        // nor is that one
	l.Held("another", false, -1<<62) // or that
	l.flush(t)
	l.stop()

	again := run(t, folder, forever())
	if err := again.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, _ := again.Learned(long[:maxWord], AnyModel, false); got.HoldDraw.Value() != 9*power.Watt || got.HoldDraw.Count() != 3 {
		t.Errorf("on line power it is %+v", got.HoldDraw)
	}
	if got, _ := again.Learned(long[:maxWord], AnyModel, true); got.HoldDraw.Value() != maxDraw {
		t.Errorf("on battery it is %+v", got.HoldDraw)
	}
	if got, ok := again.Learned("another", AnyModel, false); ok {
		t.Errorf("of another backend it is %+v", got)
	}
	if jobs, err := again.Recent(t.Context(), 10); err != nil || len(jobs) != 0 {
		t.Errorf("there are jobs: %v, %v", jobs, err)
	}
}

func TestAskingWhatWasLearnedOpensTheFile(t *testing.T) {
	folder := t.TempDir()
	l := run(t, folder, forever())
	l.Record(answer())
	l.stop()
	synctest.Test(t, func(t *testing.T) {
		again := run(t, folder, forever())
		defer again.stop()
		synctest.Wait()
		again.Learned("ollama-igpu", "qwen2.5:0.5b", true)
		synctest.Wait()
		if _, ok := again.Learned("ollama-igpu", "qwen2.5:0.5b", true); !ok {
			t.Error("still not known")
		}
	})
}

func TestNothingIsOpenedBeforeItIsNeeded(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "state")
	run(t, folder, forever()).stop()
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
}

func TestNobodyElseCanReadIt(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "state")
	l := run(t, folder, forever())
	l.Record(answer())
	l.flush(t)
	for path, want := range map[string]os.FileMode{folder: 0o700, filepath.Join(folder, FileName): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s is %v, %v", path, info.Mode(), err)
		}
	}
}

func TestEntriesAreWrittenTogetherWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		folder := t.TempDir()
		l := run(t, folder, forever())
		defer l.stop()
		size := func() int64 {
			info, _ := os.Stat(filepath.Join(folder, FileName+"-wal"))
			if info == nil {
				return 0
			}
			return info.Size()
		}
		l.Record(answer())
		synctest.Wait()
		opened := size()
		time.Sleep(flushAfter / 2)
		l.Record(answer())
		synctest.Wait()
		if got := size(); got != opened {
			t.Errorf("the log grew from %d to %d before its time", opened, got)
		}
		time.Sleep(flushAfter / 2)
		synctest.Wait()
		written := size()
		if written <= opened {
			t.Errorf("the log has %d bytes still", written)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := size(); got != written {
			t.Errorf("the log grew from %d to %d with nothing to write", written, got)
		}
	})
}

func TestManyEntriesDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := run(t, t.TempDir(), forever())
		defer l.stop()
		for range flushMost - 1 {
			l.Record(answer())
		}
		synctest.Wait()
		if n := len(l.owned.pending.entries); n != flushMost-1 {
			t.Errorf("%d wait", n)
		}
		l.Record(answer())
		synctest.Wait()
		if n := len(l.owned.pending.entries); n != 0 {
			t.Errorf("%d wait", n)
		}
	})
}

func TestAFullQueueLosesTheOldestAndSaysSo(t *testing.T) {
	log := &journal{}
	l := New(t.TempDir(), forever(), slog.New(slog.NewTextHandler(log, nil)))
	for i := range maxNotes + 5 { // and nobody runs it
		l.Record(but(func(e *Entry) { e.ID = fmt.Sprint(i) }))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if w := log.lines(slog.LevelWarn); len(w) != 1 || !strings.Contains(w[0], "notes=5") {
		t.Errorf("it said %q", w)
	}
	again := run(t, filepath.Dir(l.owned.path), forever())
	if _, err := again.Job(t.Context(), "4"); !errors.Is(err, ErrNoJob) {
		t.Errorf("the fifth is still there: %v", err)
	}
	if _, err := again.Job(t.Context(), "5"); err != nil {
		t.Errorf("the sixth is not: %v", err)
	}
}

func TestOldJobsAreForgottenAndTheirSumsAreNot(t *testing.T) {
	folder := t.TempDir()
	keep := Keep{Jobs: 90 * aDay, MostJobs: 1000, Days: 5 * 365 * aDay}
	now := time.Now()
	l := run(t, folder, keep)
	l.Record(but(func(e *Entry) { e.ID, e.Ended = "six years old", now.AddDate(-6, 0, 0) }))
	l.Record(but(func(e *Entry) { e.ID, e.Ended = "a year old", now.AddDate(-1, 0, 0) }))
	l.Record(but(func(e *Entry) { e.ID, e.Ended = "new", now }))
	l.stop()

	l = run(t, folder, keep)
	if latest, err := l.Recent(t.Context(), 10); err != nil || len(latest) != 1 || latest[0].ID != "new" {
		t.Errorf("jobs: %v, %v", latest, err)
	}
	if got := l.totals(t, Everything)[0].Measured.Jobs; got != 2 {
		t.Errorf("the sums have %d jobs, want those of the last five years", got)
	}
}

func TestTooManyJobsAreForgotten(t *testing.T) {
	folder := t.TempDir()
	keep := forever()
	keep.MostJobs = 10
	for range 2 { // when the file is opened, and not again on that day
		l := run(t, folder, keep)
		for range 30 {
			l.Record(but(func(e *Entry) { e.Ended = time.Now() }))
			l.flush(t)
		}
		l.stop()
	}
	l := run(t, folder, keep)
	l.Record(but(func(e *Entry) { e.Ended = time.Now() }))
	if latest, err := l.Recent(t.Context(), 100); err != nil || len(latest) != 10 {
		t.Errorf("%d jobs are left, %v", len(latest), err)
	}
	if got := l.totals(t, Everything)[0].Measured.Jobs; got != 61 {
		t.Errorf("the sums have %d jobs, want all 61", got)
	}
}

func TestPruningComesOnceADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keep := forever()
		keep.MostJobs = 2
		l := run(t, t.TempDir(), keep)
		defer l.stop()
		record := func(n int) (left int) {
			for range n {
				l.Record(but(func(e *Entry) { e.Ended = time.Now() }))
			}
			latest, err := l.Recent(t.Context(), 100)
			if err != nil {
				t.Fatal(err)
			}
			return len(latest)
		}
		if got := record(5); got != 2 {
			t.Errorf("%d are left of five, want 2", got)
		}
		if got := record(5); got != 7 {
			t.Errorf("%d are left on the same day, want 7", got)
		}
		time.Sleep(24 * time.Hour)
		if got := record(1); got != 2 {
			t.Errorf("%d are left on the next day, want 2", got)
		}
	})
}

func TestAFileOfAnEarlierVersionIsBroughtForward(t *testing.T) {
	folder := t.TempDir()
	l := run(t, folder, forever())
	l.Record(answer())
	l.stop()
	db := openRaw(t, folder)
	next := append(migrations(), "ALTER TABLE job ADD COLUMN mood TEXT NOT NULL DEFAULT 'good'")
	if err := migrate(db, next); err != nil {
		t.Fatal(err)
	}
	if got := query(t, db, "SELECT mood FROM job"); got != "good" {
		t.Errorf("got %q", got)
	}
	if got := query(t, db, "PRAGMA user_version"); got != fmt.Sprint(len(next)) {
		t.Errorf("it has version %s", got)
	}
	broken := append(next, "CREATE TABLE half (a TEXT); CREATE TABLE job (a TEXT)")
	if err := migrate(db, broken); err == nil {
		t.Error("a step that fails is no error")
	}
	if got := query(t, db, "SELECT count(*) FROM sqlite_schema WHERE name = 'half'"); got != "0" {
		t.Error("half a step was left behind")
	}
}

func TestAFileOfTheFirstVersionKeepsItsJobs(t *testing.T) {
	folder := t.TempDir()
	db := openRaw(t, folder)
	if err := migrate(db, migrations()[:1]); err != nil {
		t.Fatal(err)
	}
	columns, _, _ := strings.Cut(jobColumns, ", failed")
	if err := db.Exec("INSERT INTO job (" + columns + `, failed) VALUES
		('a', '2025-06-01', 1, 2, 'ollama-igpu', 'm:latest', 'igpu', 'editor', 'interactive', 'battery', 1,
		50, 100, 0, 0, 0, 0, 0, 190000000, 0, 0, 0, 'measured', 'package', 'rapl', 0, 1, 1, '')`); err != nil {
		t.Fatal(err)
	}
	db.Close()
	l := run(t, folder, forever())
	e, err := l.Job(t.Context(), "a")
	if err != nil || e.Tokens != 100 || e.Cost.Energy != 190*power.Joule || e.Kind != "" || e.Completion || e.MaxTokens != 0 {
		t.Errorf("got %+v, %v", e, err)
	}
	if all, err := l.Answers(t.Context(), 10); err != nil || len(all) != 0 {
		t.Errorf("of what it asked for is known %+v, %v", all, err)
	}
	l.mustHaveSaid(t, 0, 0)
}

func TestAFileOfALaterVersionIsLeftAlone(t *testing.T) {
	folder := t.TempDir()
	db := openRaw(t, folder)
	if err := db.Exec("CREATE TABLE later (a TEXT); PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	l := run(t, folder, forever())
	l.Record(answer())
	if err := l.Flush(t.Context()); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("got %v", err)
	}
	if got := l.totals(t, Everything)[0].Measured.Jobs; got != 1 {
		t.Errorf("%d jobs are known", got)
	}
	l.stop()
	if got := query(t, openRaw(t, folder), "SELECT count(*) FROM sqlite_schema"); got != "1" {
		t.Errorf("it has %s tables now", got)
	}
}
