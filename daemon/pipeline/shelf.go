package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/joulemux/joulemux/daemon/document"
	"github.com/joulemux/joulemux/daemon/job"
)

// Shelf is where pipelines are kept: folders with a file NAME.yaml for each, of
// which the first that has a name counts. Nothing is kept of them between two
// looks.
type Shelf []string

// Entry is a file on the shelf.
type Entry struct {
	Name, Path string
	File       []byte
	// Pipeline is nil if there is something wrong with it, which Err says.
	Pipeline *Pipeline
	Err      error
}

// List returns all pipelines that there are, by name.
func (s Shelf) List() []Entry {
	var list []Entry
	for _, folder := range s {
		files, _ := os.ReadDir(folder) // that there is no such folder is usual
		for _, f := range files {
			name, is := strings.CutSuffix(f.Name(), extension)
			if !is || !isFile(name) || slices.ContainsFunc(list, func(e Entry) bool { return e.Name == name }) {
				continue
			}
			list = append(list, read(name, filepath.Join(folder, f.Name())))
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return list
}

const extension = ".yaml"

// Find returns the pipeline of a name. The error is a *job.Error: PipelineNotFound,
// or Invalid with what is wrong with it.
func (s Shelf) Find(name string) (Entry, error) {
	if isFile(name) {
		for _, folder := range s {
			e := read(name, filepath.Join(folder, name+extension))
			if errors.Is(e.Err, fs.ErrNotExist) {
				continue
			}
			if e.Err != nil {
				return e, &job.Error{Code: job.Invalid, Field: "pipeline", Detail: e.Path, Err: e.Err}
			}
			return e, nil
		}
	}
	var names []string
	for _, e := range s.List() {
		names = append(names, e.Name)
	}
	return Entry{}, &job.Error{Code: job.PipelineNotFound, Field: "pipeline", Detail: fmt.Sprintf("%.*q%s", longestName, name, suggestion(name, slices.Values(names)))}
}

// isFile reports whether a name can be that of a file, and of none elsewhere.
func isFile(name string) bool {
	return name != "" && len(name) <= longestName && !strings.HasPrefix(name, ".") && strings.Trim(name, letters) == ""
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

// read reads a pipeline.
func read(name, path string) Entry {
	e := Entry{Name: name, Path: path}
	if e.File, e.Err = document.ReadFile(path, longestFile); e.Err == nil {
		e.Pipeline, e.Err = Parse(name, e.File)
	}
	return e
}
