package dispatch

import (
	"slices"
	"sync"
	"time"
)

// lines are the attempts under way on each backend, in the order in which they
// were sent there.
//
// A server that works on one job at a time, as Ollama does by default, leaves
// the next ones without a word: whoever stands in line is not forgotten. His
// time begins when those before him are through. If they were given up because
// the server was silent, it did not begin with them: the silence is his too.
type lines struct {
	mu   sync.Mutex
	byID map[string][]*vigil
}

func newLines() *lines { return &lines{byID: make(map[string][]*vigil)} }

// join puts v behind those that are on a backend already.
func (l *lines) join(id string, v *vigil) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v.before.Store(int32(len(l.byID[id])))
	l.byID[id] = append(l.byID[id], v)
}

// leave lets those behind v move up.
func (l *lines) leave(id string, v *vigil) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := slices.Index(l.byID[id], v)
	l.byID[id] = slices.Delete(l.byID[id], at, at+1)
	for _, behind := range l.byID[id][at:] {
		if !v.gaveUp {
			behind.turnAt.Store(int64(time.Since(behind.since)))
		}
		behind.before.Add(-1)
		select {
		case behind.moved <- struct{}{}:
		default: // it has not looked yet since the last time
		}
	}
	if len(l.byID[id]) == 0 {
		delete(l.byID, id)
	}
}
