package config

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a file must be left alone before it is read: editors
// write in several steps.
const settle = 100 * time.Millisecond

// Watch calls changed once it watches, and then whenever the file at path may
// have become another, until ctx is done: what is read at each call misses no
// change. It calls rarely for nothing, and never while nothing happens.
//
// Editors replace files rather than write them, and dotfiles are often links,
// so what is watched are the folders of the file and of every link that leads
// to it. A folder that does not exist is waited for in its parent.
func Watch(ctx context.Context, path string, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %s: %w", path, err)
	}
	defer w.Close()
	full, err := filepath.Abs(path) // as events name it
	if err != nil {
		return fmt.Errorf("watching %s: %w", path, err)
	}
	t := trail{watcher: w, path: full, folders: map[string]bool{}}
	t.follow()
	seen := fingerprint(path)
	changed()
	quiet := time.NewTimer(0)
	<-quiet.C
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-w.Events:
			if !ok {
				return errors.New("watching the configuration ended")
			}
			if t.on(e.Name) {
				quiet.Reset(settle)
			}
		case <-w.Errors: //nolint:errcheck // Whatever it says, the cure is the same.
			// Events were lost; whether one mattered is seen by looking.
			quiet.Reset(settle)
		case <-quiet.C:
			t.follow()
			if now := fingerprint(path); now != seen {
				seen = now
				changed()
			}
		}
	}
}

// state is what tells one state of a file from another without reading it.
type state struct {
	exists       bool
	size         int64
	device, node uint64
	modified     time.Time
	mode         os.FileMode // decides whether it can be read
}

func fingerprint(path string) state {
	info, err := os.Stat(path)
	if err != nil {
		return state{}
	}
	s := state{exists: true, size: info.Size(), modified: info.ModTime(), mode: info.Mode()}
	s.device, s.node = inode(info)
	return s
}

// trail is what a path leads through: the file, links and folders on the way,
// and the folders that are watched for them.
type trail struct {
	watcher *fsnotify.Watcher
	path    string
	steps   []string
	folders map[string]bool
}

// on reports whether a file or folder that has changed is on the trail.
func (t *trail) on(name string) bool {
	return slices.ContainsFunc(t.steps, func(step string) bool {
		return step == name || strings.HasPrefix(step, name+"/")
	})
}

// follow watches the folders through which the path leads now, and no others.
func (t *trail) follow() {
	t.steps = steps(t.path)
	now := make(map[string]bool)
	for _, step := range t.steps {
		folder, ok := existing(filepath.Dir(step))
		// Adding a folder that is watched does nothing, unless it is another
		// of the same name by now.
		if ok && t.watcher.Add(folder) == nil {
			now[folder] = true
		}
	}
	for folder := range t.folders {
		if !now[folder] {
			_ = t.watcher.Remove(folder) // it may be gone, and its watch with it
		}
	}
	t.folders = now
}

// maxLinks is how many links a path may lead through, as for the kernel.
const maxLinks = 40

// steps returns the path, each link on its way, and what they lead to: for any
// of them to change changes the file.
func steps(path string) []string {
	all := []string{path}
	for range maxLinks {
		link, next, ok := resolveOne(path)
		if !ok {
			break
		}
		all = append(all, link, next)
		path = next
	}
	return all
}

// resolveOne follows the last link in path, be it of a folder or of the file.
func resolveOne(path string) (link, next string, ok bool) {
	for prefix, rest := path, ""; prefix != filepath.Dir(prefix); prefix = filepath.Dir(prefix) {
		if target, err := os.Readlink(prefix); err == nil {
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(prefix), target)
			}
			return prefix, filepath.Join(target, rest), true
		}
		rest = filepath.Join(filepath.Base(prefix), rest)
	}
	return "", "", false
}

// maxMissing is how many folders above the file may be missing and are waited
// for: ours, and the user's folder of configurations.
const maxMissing = 2

// existing returns folder, or the nearest above it that there is.
func existing(folder string) (string, bool) {
	for range maxMissing + 1 {
		if info, err := os.Stat(folder); err == nil && info.IsDir() {
			return folder, true
		}
		folder = filepath.Dir(folder)
	}
	return "", false
}
