package ledger

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
)

// BenchmarkRecord is what a job pays: below 2 us, whatever the disk does.
func BenchmarkRecord(b *testing.B) {
	l := New(b.TempDir(), forever(), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = l.Run(ctx) })
	e := answer()
	for b.Loop() {
		l.Record(e)
	}
	b.StopTimer()
	cancel()
	running.Wait()
}

// BenchmarkLearned is what a decision pays.
func BenchmarkLearned(b *testing.B) {
	l := New(b.TempDir(), forever(), slog.New(slog.DiscardHandler))
	l.owned.take(note{entry: new(answer())})
	defer l.owned.close()
	for b.Loop() {
		if _, ok := l.Learned("ollama-igpu", "qwen2.5:0.5b", true); !ok {
			b.Fatal("nothing was learned")
		}
	}
}

// BenchmarkFlush is what the disk takes: of one entry, as when jobs are far
// between, and of an entry among as many as are written at once.
func BenchmarkFlush(b *testing.B) {
	for name, n := range map[string]int{"one": 1, "many": flushMost} {
		b.Run(name, func(b *testing.B) {
			f, err := openFile(filepath.Join(b.TempDir(), FileName), 0)
			if err != nil {
				b.Fatal(err)
			}
			defer f.close()
			p := newPending()
			for range n {
				p.record(answer())
			}
			for b.Loop() {
				if err := f.write(p, nil, forever()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "us/entry")
		})
	}
}
