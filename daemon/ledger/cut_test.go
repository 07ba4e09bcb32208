package ledger

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/joulemux/joulemux/power"
	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// op is one thing that was done to the disk, or a note of how many jobs were
// reported as written by then.
type op struct {
	file string
	kind string // "write", "truncate", "sync", "delete" or "written"
	at   int64  // or the size, or the number of jobs
	data []byte
}

// tape is a file system that remembers what is done to it. It waits for no
// disk: when something has to be on it is for the replay to say.
type tape struct {
	vfs.VFS
	name string
	ops  []op
}

// newTape returns an empty one, which the library knows by its name.
func newTape(t *testing.T, name string) *tape {
	t.Helper()
	tape := &tape{VFS: vfs.Find(""), name: name}
	vfs.Register(name, tape)
	t.Cleanup(func() { vfs.Unregister(name) })
	return tape
}

func (t *tape) note(o op) { t.ops = append(t.ops, o) }

func (t *tape) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, flags, err := t.VFS.(vfs.VFSFilename).OpenFilename(name, flags)
	if err != nil {
		return nil, flags, err
	}
	return &taped{f, t, filepath.Base(name.String())}, flags, nil
}

func (t *tape) Delete(name string, syncDir bool) error {
	err := t.VFS.Delete(name, false)
	t.note(op{file: filepath.Base(name), kind: "delete"})
	if syncDir {
		t.note(op{file: filepath.Base(name), kind: "sync"})
	}
	return err
}

// taped is a file on a tape.
type taped struct {
	vfs.File
	tape *tape
	name string
}

func (f *taped) WriteAt(p []byte, at int64) (int, error) {
	f.tape.note(op{file: f.name, kind: "write", at: at, data: append([]byte(nil), p...)})
	return f.File.WriteAt(p, at)
}

func (f *taped) Truncate(size int64) error {
	f.tape.note(op{file: f.name, kind: "truncate", at: size})
	return f.File.Truncate(size)
}

func (f *taped) Sync(vfs.SyncFlag) error {
	f.tape.note(op{file: f.name, kind: "sync"})
	return nil
}

// open opens the ledger at a path on the tape.
func (t *tape) open(path string) (*file, error) {
	db, err := sqlite3.Open("file:" + path + "?vfs=" + t.name)
	if err != nil {
		return nil, err
	}
	return newFile(db, path, nil)
}

// replay makes of what was done a folder, as it is when a process is killed
// then.
func replay(t *testing.T, ops []op) (folder string) {
	t.Helper()
	files := map[string][]byte{}
	for _, o := range ops {
		switch data := files[o.file]; o.kind {
		case "write":
			if missing := int(o.at) + len(o.data) - len(data); missing > 0 {
				data = append(data, make([]byte, missing)...)
			}
			copy(data[o.at:], o.data)
			files[o.file] = data
		case "truncate":
			files[o.file] = data[:min(int(o.at), len(data))]
		case "delete":
			delete(files, o.file)
		}
	}
	folder = t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// unpowered returns what of ops is on the disk when the power goes then: all
// before a file's last sync, and any of the rest, torn between any sectors.
func unpowered(ops []op, r *rand.Rand) (left []op) {
	synced := map[string]int{}
	for i, o := range ops {
		if o.kind == "sync" {
			synced[o.file] = i
		}
	}
	for i, o := range ops {
		last, ever := synced[o.file]
		switch {
		case ever && i <= last:
			left = append(left, o)
		case r.IntN(3) == 0: // it never reached the disk
		case o.kind == "write" && r.IntN(3) == 0:
			o.data = o.data[:r.IntN(1+len(o.data)/512)*512]
			left = append(left, o)
		default:
			left = append(left, o)
		}
	}
	return left
}

// recorded writes some hundred jobs, and returns all that was done for it.
func recorded(t *testing.T) []op {
	t.Helper()
	tape := newTape(t, "recorded")
	path := filepath.Join(t.TempDir(), FileName)
	for range 2 { // the second time it is there already
		f, err := tape.open(path)
		if err != nil {
			t.Fatal(err)
		}
		writeSome(t, f, tape)
		f.close()
	}
	return tape.ops
}

func writeSome(t *testing.T, f *file, tape *tape) {
	t.Helper()
	jobs, err := number(f.db, "SELECT count(*) FROM job")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 80 {
		p := newPending()
		for range 1 + i%4 {
			p.record(but(func(e *Entry) { e.ID = fmt.Sprint(jobs); e.Client = fmt.Sprint(jobs % 7) }))
			p.tail(fmt.Sprint(jobs/2), power.Energy(jobs)*power.Joule)
			jobs++
		}
		if err := f.write(p, map[subject]Learned{{}: Learned{}.With(answer())}, forever()); err != nil {
			t.Fatal(err)
		}
		tape.note(op{kind: "written", at: int64(jobs)})
	}
}

// mustKeep checks the ledger in a folder after so much was done.
func mustKeep(t *testing.T, disk *tape, folder string, ops []op) {
	t.Helper()
	jobs := int64(0)
	for _, o := range ops {
		if o.kind == "written" {
			jobs = o.at
		}
	}
	f, err := disk.open(filepath.Join(folder, FileName))
	if err != nil {
		t.Errorf("after %d steps: %v", len(ops), err)
		return
	}
	defer f.close()
	if got := query(t, f.db, "PRAGMA integrity_check"); got != "ok" {
		t.Errorf("after %d steps: %s", len(ops), got)
	}
	if got, err := number(f.db, "SELECT count(*) FROM job"); err != nil || int64(got) < jobs {
		t.Errorf("after %d steps: %d jobs are left of %d, %v", len(ops), got, jobs, err)
	}
	if got := query(t, f.db, differing); got != "0" {
		t.Errorf("after %d steps: %s sums are not those of the jobs", len(ops), got)
	}
}

func TestAtNoInstantCanItBeHurt(t *testing.T) {
	ops, disk := recorded(t), newTape(t, "replayed")
	r := rand.New(rand.NewPCG(1, 2))
	tests := []struct {
		name string
		left func([]op) []op
	}{
		{"by a kill", func(ops []op) []op { return ops }},
		{"by the end of the power", func(ops []op) []op { return unpowered(ops, r) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// All instants of the first transactions, and some of the rest.
			for at := 0; at <= len(ops) && !t.Failed(); at += 1 + max(0, at-45)/6*r.IntN(2) {
				mustKeep(t, disk, replay(t, tt.left(ops[:at])), ops[:at])
			}
		})
	}
	t.Logf("%d steps", len(ops))
}
