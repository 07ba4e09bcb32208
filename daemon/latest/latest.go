// Package latest keeps the newest version of a value for readers who may be
// slower than whoever publishes it.
package latest

import (
	"context"
	"iter"
	"sync/atomic"
)

// version is a value plus the signal that it is no longer the latest.
type version[T any] struct {
	value      T
	superseded chan struct{}
}

// Value is the newest version of a value that is never changed in place. Its
// zero value holds the zero T.
//
// Readers wait for their own version to be superseded, so publishing never
// blocks on a slow reader, and a slow reader skips straight to the newest.
type Value[T any] struct {
	now atomic.Pointer[version[T]]
}

// Publish makes v the newest version. Calls must not overlap: the value has
// one owner.
func (l *Value[T]) Publish(v T) {
	old := l.load()
	l.now.Store(&version[T]{value: v, superseded: make(chan struct{})})
	close(old.superseded)
}

// Current returns the newest version. It costs one atomic load.
func (l *Value[T]) Current() T { return l.load().value }

// Watch yields the current version and then each newer one until ctx is done.
// A slow reader misses versions in between, never the last.
func (l *Value[T]) Watch(ctx context.Context) iter.Seq[T] {
	return func(yield func(T) bool) {
		for {
			v := l.load()
			if !yield(v.value) {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-v.superseded:
			}
		}
	}
}

func (l *Value[T]) load() *version[T] {
	if v := l.now.Load(); v != nil {
		return v
	}
	l.now.CompareAndSwap(nil, &version[T]{superseded: make(chan struct{})})
	return l.now.Load()
}
