package daemon

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/tracker"
)

// tiers is the tracker with a preference that lasts.
type tiers struct {
	*tracker.Tracker
	file preferenceFile
	// one keeps several wishes apart: what lasts is what is in force.
	one sync.Mutex
}

// Prefer keeps the preference for the next start too.
func (t *tiers) Prefer(ctx context.Context, p power.Preference) error {
	t.one.Lock()
	defer t.one.Unlock()
	if err := t.file.save(p); err != nil {
		return err
	}
	return t.Tracker.Prefer(ctx, p)
}

// preferenceFile is where the preference lasts: a file with its name in it.
type preferenceFile struct {
	folder string
	log    *slog.Logger
}

func (f preferenceFile) path() string { return filepath.Join(f.folder, "policy") }

// load returns what was kept, or auto. What cannot be read is no reason not to
// start.
func (f preferenceFile) load() power.Preference {
	if f.folder == "" {
		return power.PreferAuto
	}
	text, err := os.ReadFile(f.path())
	if errors.Is(err, fs.ErrNotExist) {
		return power.PreferAuto
	}
	p := power.PreferAuto
	if err == nil {
		p, err = power.ParsePreference(strings.TrimSpace(string(text)))
	}
	if err != nil {
		f.log.Warn("the policy that was kept cannot be read", "err", err)
		return power.PreferAuto
	}
	return p
}

// save replaces the file, so that it is there whole at any time.
func (f preferenceFile) save(p power.Preference) error {
	if f.folder == "" {
		return nil
	}
	if err := os.MkdirAll(f.folder, 0o700); err != nil {
		return err
	}
	fresh := f.path() + ".new"
	if err := os.WriteFile(fresh, []byte(string(p)+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, f.path())
}
