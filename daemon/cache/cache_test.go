package cache

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

func keyOf(n byte) Key { return Key{sum: [32]byte{n}, client: "me"} }

var here = []Place{{Model: "m", Digest: "d", Class: "igpu"}}

func TestKeepsWithinItsBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(20) {
			r := rand.New(rand.NewPCG(seed, 3))
			limit := 1000 * (1 + r.IntN(100))
			c := New(Settings{Bytes: limit, Idle: time.Minute})
			inside := make(map[byte]*Answer)
			for range 2000 {
				n := byte(r.IntN(50))
				switch r.IntN(8) {
				case 0:
					time.Sleep(time.Duration(r.IntN(20)) * time.Second)
				case 1:
					limit = 1000 * (1 + r.IntN(100))
					c.Configure(Settings{Bytes: limit, Idle: time.Minute})
				case 2, 3, 4:
					a := &Answer{Data: make([]byte, r.IntN(limit/4)), Vectors: make([][]float32, r.IntN(3))}
					c.Keep(keyOf(n), here[0], a)
					if found, _, ok := c.Find(keyOf(n), here); name.size(name{keyOf(n), here[0]}, a) <= limit/8 && (!ok || found != a) {
						t.Fatalf("seed %d: what fits is not kept", seed)
					} else if ok {
						inside[n] = found
					}
				default:
					if a, _, ok := c.Find(keyOf(n), here); ok && a != inside[n] {
						t.Fatalf("seed %d: another answer than was kept", seed)
					}
				}
				s := c.Stats()
				total := 0
				for n, e := range c.entries {
					total += n.size(e.Value.(*entry).answer)
				}
				if s.Bytes > limit || s.Bytes != total || s.Entries != c.order.Len() || s.Entries != len(c.entries) {
					t.Fatalf("seed %d: %+v of %d bytes, in truth %d", seed, s, limit, total)
				}
			}
		}
	})
}

func TestForgetsWhatWasUsedTheLongestTimeAgo(t *testing.T) {
	c := New(Settings{Bytes: 10_000, Idle: time.Hour})
	for n := range byte(8) {
		c.Keep(keyOf(n), here[0], &Answer{Data: make([]byte, 600)})
		c.Find(keyOf(0), here)
	}
	for n := range byte(12) {
		c.Keep(keyOf(100+n), here[0], &Answer{Data: make([]byte, 200)})
		c.Find(keyOf(0), here)
	}
	if _, _, ok := c.Find(keyOf(0), here); !ok {
		t.Error("what is used all the time is gone")
	}
	if _, _, ok := c.Find(keyOf(1), here); ok {
		t.Error("what nobody uses is not")
	}
	if s := c.Stats(); s.Evictions == 0 || s.Bytes > 10_000 {
		t.Errorf("got %+v", s)
	}
}

func TestForgetsWhatNobodyAsksFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Settings{Bytes: 1 << 20, Idle: time.Minute})
		c.Keep(keyOf(1), here[0], &Answer{})
		c.Keep(keyOf(2), here[0], &Answer{})
		for range 3 {
			time.Sleep(50 * time.Second)
			if _, _, ok := c.Find(keyOf(1), here); !ok {
				t.Error("what is asked for is gone")
			}
		}
		if s := c.Stats(); s.Entries != 1 || s.Expiries != 1 {
			t.Errorf("got %+v", s)
		}
		time.Sleep(61 * time.Second)
		if s := c.Stats(); s.Entries != 0 || s.Bytes != 0 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestPlacesAreToldApart(t *testing.T) {
	c := New(DefaultSettings())
	cpu := Place{Model: "m", Digest: "d", Class: "cpu"}
	c.Keep(keyOf(1), here[0], &Answer{Backend: "a"})
	c.Keep(keyOf(1), cpu, &Answer{Backend: "b"})
	if a, from, ok := c.Find(keyOf(1), []Place{{Model: "m", Digest: "e", Class: "igpu"}, cpu}); !ok || a.Backend != "b" || from != cpu {
		t.Errorf("got %+v from %+v", a, from)
	}
	if _, _, ok := c.Find(keyOf(1), []Place{{Model: "n", Digest: "d", Class: "cpu"}}); ok {
		t.Error("another model's answer")
	}
	c.Only(map[string]bool{"e": true})
	if s := c.Stats(); s.Entries != 0 || s.Bytes != 0 {
		t.Errorf("a model that is gone has %+v", s)
	}
}

func TestSharingBeginsAnew(t *testing.T) {
	c := New(DefaultSettings())
	c.Keep(keyOf(1), here[0], &Answer{})
	c.Configure(Settings{Bytes: 1 << 20, Idle: time.Hour})
	if s := c.Stats(); s.Entries != 1 || s.Limit != 1<<20 {
		t.Errorf("got %+v", s)
	}
	c.Configure(Settings{Bytes: 1 << 20, Idle: time.Hour, Share: true})
	if n := c.Clear(); n != 0 {
		t.Errorf("there are %d", n)
	}
	c.Keep(keyOf(1), here[0], &Answer{})
	if n := c.Clear(); n != 1 || c.Stats().Bytes != 0 {
		t.Errorf("there were %d, and are %+v", n, c.Stats())
	}
}

func TestOffKeepsNothing(t *testing.T) {
	c := New(Settings{})
	c.Keep(keyOf(1), here[0], &Answer{})
	if s := c.Stats(); s.Entries != 0 {
		t.Errorf("got %+v", s)
	}
}
