package powertest

import (
	"io/fs"
	"slices"
	"sync"
)

// Log is a tree that remembers what was opened in it, folders as well as files.
// It is how a test shows that a sleeping device was left alone.
type Log struct {
	tree fs.FS

	mu     sync.Mutex
	opened []string
}

// NewLog returns tree with nothing opened in it.
func NewLog(tree fs.FS) *Log { return &Log{tree: tree} }

// Open opens a file. There are no other ways into the tree: what package fs
// does for a tree that offers more, it does by opening here.
func (l *Log) Open(name string) (fs.File, error) {
	l.mu.Lock()
	l.opened = append(l.opened, name)
	l.mu.Unlock()
	return l.tree.Open(name)
}

// Opened returns the paths that were opened, or that it was tried for, each
// once and sorted.
func (l *Log) Opened() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.opened)
	return slices.Compact(slices.Clone(l.opened))
}
