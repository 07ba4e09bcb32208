package queue

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// listed is what order promises, in so many words: a sorted list.
type listed []weighed

type weighed struct {
	key
	weight time.Duration
}

func (l listed) upTo(at time.Duration) (size int, sum time.Duration) {
	for _, w := range l {
		if w.at <= at {
			size, sum = size+1, sum+w.weight
		}
	}
	return size, sum
}

func TestOrderIsASortedList(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var o order[key]
	var want listed
	for serial := range uint64(20_000) {
		if i := random.IntN(200); i < len(want) {
			o.remove(want[i].key)
			o.remove(want[i].key) // what is not there is left alone
			want = slices.Delete(want, i, i+1)
		}
		k := key{time.Duration(random.IntN(50)), serial}
		w := weighed{k, time.Duration(random.IntN(9))}
		o.add(k, k, w.weight)
		i, _ := slices.BinarySearchFunc(want, k, func(w weighed, k key) int { return w.compare(k) })
		want = slices.Insert(want, i, w)

		at := time.Duration(random.IntN(60))
		size, sum := o.upTo(at)
		wantSize, wantSum := want.upTo(at)
		if first, _ := o.first(); first != want[0].key || size != wantSize || sum != wantSum {
			t.Fatalf("first %v, up to %d: %d, %d; want %v, %d, %d", first, at, size, sum, want[0].key, wantSize, wantSum)
		}
	}
	wantLen, wantSum := want.upTo(never)
	i := 0
	for k := range o.all {
		if k != want[i].key {
			t.Errorf("%d: %v, want %v", i, k, want[i].key)
		}
		i++
	}
	if i != wantLen || o.len() != wantLen || o.sum() != wantSum {
		t.Errorf("%d values, %d, %d; want %d, %d", i, o.len(), o.sum(), wantLen, wantSum)
	}
}

// What differs only by serial number still makes a shallow tree.
func TestOrderIsShallow(t *testing.T) {
	var o order[int]
	for serial := range uint64(100_000) {
		o.add(key{0, serial}, 0, 0)
	}
	// A random tree of so many is about 40 deep: 2 ln n expected by depth, and
	// the deepest about twice that.
	if d := o.root.depth(); d > 60 {
		t.Errorf("%d deep", d)
	}
}

func (n *node[V]) depth() int {
	if n == nil {
		return 0
	}
	return 1 + max(n.left.depth(), n.right.depth())
}
