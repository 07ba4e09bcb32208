package pipeline_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/joulemux/joulemux/daemon/document"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/pipeline"
)

// put writes a file into a folder.
func put(t *testing.T, folder, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTheFirstFolderGoesBefore(t *testing.T) {
	mine, shipped := t.TempDir(), t.TempDir()
	put(t, mine, "b.yaml", "description: mine\n"+one(""))
	put(t, mine, "broken.yaml", one("    promt: x"))
	put(t, mine, "not a name.yaml", one(""))
	put(t, mine, ".hidden.yaml", one(""))
	put(t, mine, "notes.txt", "x")
	put(t, shipped, "a.yaml", one(""))
	put(t, shipped, "b.yaml", "description: shipped\n"+one(""))
	s := pipeline.Shelf{filepath.Join(mine, "missing"), mine, shipped}
	list := s.List()
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
	}
	if strings.Join(names, " ") != "a b broken" || list[1].Pipeline.Description != "mine" || list[2].Err == nil || list[2].Pipeline != nil {
		t.Errorf("got %v: %+v", names, list)
	}
	if e, err := s.Find("b"); err != nil || e.Pipeline.Description != "mine" || e.Path != filepath.Join(mine, "b.yaml") {
		t.Errorf("got %+v, %v", e, err)
	}
	put(t, mine, "b.yaml", "description: changed\n"+one(""))
	if e, err := s.Find("b"); err != nil || e.Pipeline.Description != "changed" {
		t.Errorf("got %+v, %v", e, err)
	}
	_, err := s.Find("broken")
	var faults document.Faults
	if !errors.Is(err, job.Invalid) || !errors.As(err, &faults) || !strings.Contains(err.Error(), "broken.yaml: line 4") {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsNoPipelineIsNotFound(t *testing.T) {
	folder := t.TempDir()
	put(t, folder, "triage.yaml", one(""))
	put(t, filepath.Dir(folder), "secret.yaml", one(""))
	s := pipeline.Shelf{folder}
	for _, name := range []string{"", "triag", "../secret", "..", "a/b", "/etc/passwd", strings.Repeat("x", 5000), "x\x00y"} {
		if _, err := s.Find(name); !errors.Is(err, job.PipelineNotFound) || len(err.Error()) > 500 {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := s.Find("triag"); !strings.Contains(err.Error(), `did you mean "triage"?`) {
		t.Errorf("got %v", err)
	}
	if err := syscall.Mkfifo(filepath.Join(folder, "pipe.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, folder, "huge.yaml", strings.Repeat("#", 300<<10))
	for name, want := range map[string]string{"pipe": "it is no regular file", "huge": "longer than 262144 bytes"} {
		if _, err := s.Find(name); !errors.Is(err, job.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
