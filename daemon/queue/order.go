package queue

import (
	"cmp"
	"time"
)

// order keeps values sorted by key and knows what those up to some key weigh.
// It is a treap: a search tree by key which is a heap by the hash of the key,
// and so as shallow as if the keys had come in random order.
type order[V any] struct{ root *node[V] }

// key is where a value stands: by at, and among equals by serial.
type key struct {
	at     time.Duration
	serial uint64
}

func (k key) compare(other key) int {
	return cmp.Or(cmp.Compare(k.at, other.at), cmp.Compare(k.serial, other.serial))
}

// hash returns a key's place in the heap: the finalizer of SplitMix64, which
// spreads serial numbers evenly (Steele, Lea and Flood, OOPSLA 2014).
func (k key) hash() uint64 {
	h := k.serial * 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

type node[V any] struct {
	key
	value       V
	weight      time.Duration
	left, right *node[V]
	// size and sum are of the whole subtree.
	size int
	sum  time.Duration
}

// add inserts a value under a key that is not there.
func (o *order[V]) add(k key, v V, weight time.Duration) {
	o.root = o.root.insert(&node[V]{key: k, value: v, weight: weight, size: 1, sum: weight})
}

// remove deletes what is under a key, if anything is.
func (o *order[V]) remove(k key) { o.root = o.root.remove(k) }

// first returns the value with the least key.
func (o *order[V]) first() (v V, ok bool) {
	n := o.root
	if n == nil {
		return v, false
	}
	for n.left != nil {
		n = n.left
	}
	return n.value, true
}

// upTo returns how many values stand at or before at, and their weight.
func (o *order[V]) upTo(at time.Duration) (size int, sum time.Duration) {
	for n := o.root; n != nil; {
		if n.at > at {
			n = n.left
			continue
		}
		size, sum = size+1+n.left.len(), sum+n.weight+n.left.total()
		n = n.right
	}
	return size, sum
}

// len returns how many values there are, and sum what they weigh.
func (o *order[V]) len() int           { return o.root.len() }
func (o *order[V]) sum() time.Duration { return o.root.total() }

// all yields the values in order.
func (o *order[V]) all(yield func(V) bool) { o.root.all(yield) }

func (n *node[V]) all(yield func(V) bool) bool {
	return n == nil || n.left.all(yield) && yield(n.value) && n.right.all(yield)
}

func (n *node[V]) len() int {
	if n == nil {
		return 0
	}
	return n.size
}

func (n *node[V]) total() time.Duration {
	if n == nil {
		return 0
	}
	return n.sum
}

// summed returns n with its size and sum those of what is now below it.
func (n *node[V]) summed() *node[V] {
	n.size = 1 + n.left.len() + n.right.len()
	n.sum = n.weight + n.left.total() + n.right.total()
	return n
}

func (n *node[V]) insert(fresh *node[V]) *node[V] {
	switch {
	case n == nil:
		return fresh
	case fresh.hash() > n.hash():
		fresh.left, fresh.right = n.split(fresh.key)
		return fresh.summed()
	case fresh.compare(n.key) < 0:
		n.left = n.left.insert(fresh)
	default:
		n.right = n.right.insert(fresh)
	}
	return n.summed()
}

func (n *node[V]) remove(k key) *node[V] {
	if n == nil {
		return nil
	}
	switch c := k.compare(n.key); {
	case c < 0:
		n.left = n.left.remove(k)
	case c > 0:
		n.right = n.right.remove(k)
	default:
		return n.left.merge(n.right)
	}
	return n.summed()
}

// split returns what of a tree is before k and what is after.
func (n *node[V]) split(k key) (before, after *node[V]) {
	if n == nil {
		return nil, nil
	}
	if n.compare(k) < 0 {
		n.right, after = n.right.split(k)
		return n.summed(), after
	}
	before, n.left = n.left.split(k)
	return before, n.summed()
}

// merge joins two trees, of which n is all before after.
func (n *node[V]) merge(after *node[V]) *node[V] {
	switch {
	case n == nil:
		return after
	case after == nil:
		return n
	case n.hash() > after.hash():
		n.right = n.right.merge(after)
		return n.summed()
	default:
		after.left = n.merge(after.left)
		return after.summed()
	}
}
