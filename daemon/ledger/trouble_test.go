package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/joulemux/joulemux/power"
	"github.com/ncruces/go-sqlite3"
)

// record records n answers, and their tails.
func (r running) record(n int) {
	for range n {
		r.Record(answer())
		r.Tail("a", power.Joule)
	}
}

// mustHold checks that so many jobs are known, to the last microjoule.
func (r running) mustHold(t *testing.T, jobs int) {
	t.Helper()
	var got Sum
	for _, total := range r.totals(t, Everything) {
		got = total.Measured
	}
	if int(got.Jobs) != jobs || got.Energy != power.Energy(jobs)*answer().Cost.Energy || got.Tail != power.Energy(jobs)*power.Joule {
		t.Errorf("known are %+v, want %d jobs", got, jobs)
	}
}

// mustFail checks that the file cannot be written, because of something.
func (r running) mustFail(t *testing.T, because error) {
	t.Helper()
	if err := r.Flush(t.Context()); !errors.Is(err, because) {
		t.Errorf("flushing: %v, want %v", err, because)
	}
	if err := r.Trouble(); !errors.Is(err, because) {
		t.Errorf("its trouble is %v, want %v", err, because)
	}
}

// mustHaveSaid checks how often it warned, and how often that it was over.
func (r running) mustHaveSaid(t *testing.T, warnings, recoveries int) {
	t.Helper()
	if w := r.log.lines(slog.LevelWarn); len(w) != warnings {
		t.Errorf("%d warnings, want %d: %q", len(w), warnings, w)
	}
	if w := r.log.lines(slog.LevelInfo); len(w) != recoveries {
		t.Errorf("%d recoveries, want %d: %q", len(w), recoveries, w)
	}
}

func TestAFullDiskIsSurvivedInMemory(t *testing.T) {
	folder := onDiskOfItsOwn(t, "1m")
	if folder == "" {
		return
	}
	l := run(t, filepath.Join(folder, "state"), forever())
	l.record(10)
	l.flush(t)
	filler := fill(t, folder)
	l.Held("ollama-nvidia", false, 8*power.Watt)
	l.mustFail(t, syscall.ENOSPC)
	l.mustHold(t, 10) // to read is no recovery
	for range 5 {
		l.record(100)
		l.mustFail(t, syscall.ENOSPC)
	}
	l.mustHold(t, 510)
	if known, ok := l.Learned("ollama-igpu", "qwen2.5:0.5b", true); !ok || known.TokenEnergy.Count() != 510 {
		t.Errorf("of 510 jobs %d have taught something", known.TokenEnergy.Count())
	}
	l.mustHaveSaid(t, 1, 0)

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	l.record(1)
	l.flush(t)
	l.mustHold(t, 511)
	l.mustHaveSaid(t, 1, 1)
	l.stop()
	again := run(t, filepath.Join(folder, "state"), forever())
	again.mustHold(t, 511)
	if known, _ := again.Learned("ollama-igpu", "qwen2.5:0.5b", true); known.TokenEnergy.Count() != 511 {
		t.Errorf("of 511 jobs %d have taught something", known.TokenEnergy.Count())
	}
}

// fill leaves no room on a disk.
func fill(t *testing.T, folder string) (filler string) {
	t.Helper()
	filler = filepath.Join(folder, "filler")
	err := os.WriteFile(filler, make([]byte, 2<<20), 0o600)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	return filler
}

func TestADiskThatIsFullFromTheStart(t *testing.T) {
	folder := onDiskOfItsOwn(t, "64k")
	if folder == "" {
		return
	}
	filler := fill(t, folder)
	l := run(t, folder, forever())
	l.record(3)
	l.mustFail(t, syscall.ENOSPC)
	l.mustHold(t, 3)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	l.mustHold(t, 3) // asking is enough
	l.mustHaveSaid(t, 1, 1)
}

func TestADiskThatCannotBeWritten(t *testing.T) {
	folder := onDiskOfItsOwn(t, "1m")
	if folder == "" {
		return
	}
	before := run(t, folder, forever())
	before.record(2)
	before.stop()
	remount := func(flags uintptr) {
		if err := syscall.Mount("tiny", folder, "tmpfs", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	l := run(t, folder, forever())
	l.record(3)
	l.mustFail(t, syscall.EROFS)
	l.mustHold(t, 3)
	remount(0)
	l.record(1)
	l.mustHold(t, 6)
	l.mustHaveSaid(t, 1, 1)
}

func TestAFolderThatCannotBeWritten(t *testing.T) {
	if !asNobodySpecial(t) {
		return
	}
	folder := t.TempDir()
	chmod := func(mode os.FileMode) {
		if err := os.Chmod(folder, mode); err != nil {
			t.Fatal(err)
		}
	}
	chmod(0o500)
	l := run(t, folder, forever())
	l.record(3)
	l.mustFail(t, fs.ErrPermission)
	l.mustHold(t, 3)
	chmod(0o700)
	l.record(1)
	l.mustHold(t, 4)
	l.mustHaveSaid(t, 1, 1)
}

func TestWithoutAFolderCostsAreInMemory(t *testing.T) {
	l := run(t, "", forever())
	l.record(3)
	l.mustFail(t, errNoFolder)
	l.mustHold(t, 3)
	if _, err := l.Job(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	l.mustHaveSaid(t, 1, 0)
}

func TestAFolderInThePlaceOfTheFile(t *testing.T) {
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, FileName), 0o700); err != nil {
		t.Fatal(err)
	}
	l := run(t, folder, forever())
	l.record(3)
	l.mustFail(t, syscall.EISDIR)
	l.mustHold(t, 3)
}

func TestASecondDaemonFindsTheLedgerTaken(t *testing.T) {
	folder := t.TempDir()
	first := run(t, folder, forever())
	first.record(1)
	first.flush(t)
	second := run(t, folder, forever())
	second.record(2)
	if err := second.Flush(t.Context()); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("got %v", err)
	}
	second.mustHold(t, 2)
	first.stop()
	second.record(1)
	second.mustHold(t, 4)
	second.mustHaveSaid(t, 1, 1)
}

func TestALedgerThatIsRemovedIsBegunAnew(t *testing.T) {
	folder := t.TempDir()
	l := run(t, folder, forever())
	l.record(5)
	l.flush(t)
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	l.record(2)
	l.flush(t)
	l.mustHold(t, 2)
	l.stop()
	run(t, folder, forever()).mustHold(t, 2)
}

// written makes a ledger of some size, and returns its folder.
func written(t *testing.T, jobs int) string {
	t.Helper()
	folder := t.TempDir()
	l := run(t, folder, forever())
	for i := range jobs {
		l.Record(but(func(e *Entry) { e.ID, e.Client = fmt.Sprint(i), fmt.Sprint("client-", i%50) }))
		if i%200 == 0 {
			l.flush(t)
		}
	}
	l.stop()
	return folder
}

// overwrite puts bytes into a ledger's file.
func overwrite(t *testing.T, folder string, at int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(folder, FileName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
}

func TestACorruptFileIsSetAside(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, folder string)
	}{
		{"its header is something else", func(t *testing.T, folder string) {
			t.Helper()
			overwrite(t, folder, 0, []byte("to be or not to be"))
		}},
		{"its schema is garbage", func(t *testing.T, folder string) {
			t.Helper()
			overwrite(t, folder, 100, make([]byte, 3000))
		}},
		{"its last pages are missing", func(t *testing.T, folder string) {
			t.Helper()
			if err := os.Truncate(filepath.Join(folder, FileName), 3*4096+100); err != nil {
				t.Fatal(err)
			}
		}},
		{"every page but the first is garbage", func(t *testing.T, folder string) {
			t.Helper()
			garbage := make([]byte, 20*4096)
			for i := range garbage {
				garbage[i] = 0xa5
			}
			overwrite(t, folder, 4096, garbage)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			folder := written(t, 500)
			tt.spoil(t, folder)
			l := run(t, folder, forever())
			l.record(3)
			l.flush(t)
			l.mustHold(t, 3)
			l.mustHaveSaid(t, 1, 0)
			l.stop()
			if aside, err := filepath.Glob(filepath.Join(folder, FileName+".corrupt-*Z")); err != nil || len(aside) != 1 {
				t.Errorf("set aside: %v, %v", aside, err)
			}
			again := run(t, folder, forever())
			again.mustHold(t, 3)
			again.mustHaveSaid(t, 0, 0)
		})
	}
}

func TestWhatWasLearnedOutlivesACorruptFile(t *testing.T) {
	folder := t.TempDir()
	l := run(t, folder, forever())
	l.record(20)
	l.flush(t)
	files := map[*file]bool{}
	err := l.do(t.Context(), func(s *state) {
		s.try(func(f *file) error {
			files[f] = true
			if len(files) == 1 {
				return sqlite3.CORRUPT // found in the midst of things
			}
			return nil
		})
	})
	if err != nil || len(files) != 2 {
		t.Errorf("%d files were tried, %v", len(files), err)
	}
	l.record(1)
	l.stop()

	l = run(t, folder, forever())
	l.mustHold(t, 1)
	if known, _ := l.Learned("ollama-igpu", "qwen2.5:0.5b", true); known.TokenEnergy.Count() != 21 {
		t.Errorf("of 21 jobs %d have taught something", known.TokenEnergy.Count())
	}
}

func TestAnEmptyFileIsANewOne(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, FileName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l := run(t, folder, forever())
	l.record(3)
	l.flush(t)
	l.mustHold(t, 3)
	l.mustHaveSaid(t, 0, 0)
}

func TestOnlyTheLastCorruptFilesAreKept(t *testing.T) {
	folder := t.TempDir()
	for range mostAside + 3 {
		if err := os.WriteFile(filepath.Join(folder, FileName), []byte("no database, but more than nothing"), 0o600); err != nil {
			t.Fatal(err)
		}
		l := run(t, folder, forever())
		l.record(1)
		l.flush(t)
		l.stop()
	}
	if aside, err := filepath.Glob(filepath.Join(folder, FileName+".corrupt-*Z")); err != nil || len(aside) != mostAside {
		t.Errorf("%d are kept, %v", len(aside), err)
	}
}

func TestNoDamageStopsTheLedger(t *testing.T) {
	pristine, err := os.ReadFile(filepath.Join(written(t, 300), FileName))
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 0))
		spoilt := append([]byte(nil), pristine...)
		for range 1 + r.IntN(50) {
			spoilt[r.IntN(len(spoilt))] = byte(r.Uint32())
		}
		if r.IntN(4) == 0 {
			spoilt = spoilt[:r.IntN(len(spoilt))]
		}
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, FileName), spoilt, 0o600); err != nil {
			t.Fatal(err)
		}
		l := run(t, folder, forever())
		for i := range 20 { // the tails are of jobs that were there
			l.Record(answer())
			l.Tail(fmt.Sprint(r.IntN(300)), power.Energy(i)*power.Joule)
		}
		for _, by := range []Grouping{Everything, ByDay, ByBackend, ByModel, ByClient} {
			l.totals(t, by)
		}
		if _, err := l.Recent(t.Context(), MostRecent); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		// Damage that is found only now may take the job with it, but once.
		if !l.keepsOneOf(t, 2) || l.Trouble() != nil {
			t.Errorf("seed %d: nothing is kept any more: %v", seed, l.Trouble())
		}
		l.stop()
	}
}

// keepsOneOf reports whether one of n new jobs is known once it is written.
func (r running) keepsOneOf(t *testing.T, n int) bool {
	t.Helper()
	for i := range n {
		id := fmt.Sprint("new ", i)
		r.Record(but(func(e *Entry) { e.ID = id }))
		if _, err := r.Job(t.Context(), id); err == nil {
			return true
		}
	}
	return false
}
