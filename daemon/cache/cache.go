// Package cache keeps answers that may be given again: which requests ask for
// the same, and what was answered, within bounds. It is in memory alone, runs
// nothing and has no timer; daemon/dispatch asks it before it runs a job.
//
// # What is kept
//
// The answer to a request that every time has the same answer: an embedding, or
// text that is generated with a temperature of 0 or from a fixed seed (of 0 or
// more; a negative one stands for a random one with most servers). Where a
// client writes these is a matter of its dialect: Ollama's has them among its
// options, others in the request itself. Other answers are kept for clients who
// say cache_enabled, and none for who says that it is false. Only whole answers
// are kept that are no refusal; that one ends because it is as long as it may be
// is as good an end as any.
//
// Nothing is kept that hangs on more than the request: what refers to an earlier
// answer that the server has, what has the server keep this one, and what only
// loads a model.
//
// # Who gets it
//
// The same client, by the name that its wire has for it, or any where that is
// configured. Who calls itself by a name does not get what is kept for the one that
// has it by a token or the kernel. A client without a name shares with nobody.
//
// # What is the same
//
// A request with the same model by the same name, as the answer repeats it, and
// the same in everything that a model or its sampling is told. White space does
// not matter, nor does the order of the members of a request, its options and
// its messages. Of schemas, tools and the arguments of calls the order does
// matter: servers write them out for the model as they stand. Nor matters for
// how long the model is to stay. Requests for a stream and for one piece have
// answers of their own, which are what the backend sent, to the byte: to make
// one from the other would be to invent bytes. So its times of day and counts of
// nanoseconds are those of when it was made, and what it took this time is in
// our own report.
//
// # Where it is from
//
// From weights with that digest on a device of that class. Without a target any
// backend will do that has the model, be it down; with one the answer has to be
// of a backend that is meant, or of one like it. Whose weights have no digest,
// as is so with servers of OpenAI's API, has nothing kept: nobody would know
// when they change. Once no backend has weights with that digest their answers
// are gone, which is when the servers are next asked what they have: at most ten
// seconds later while jobs come. What nobody asked for in a while goes, too, and
// what is the longest unused where there is no room.
package cache

import (
	"container/list"
	"sync"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// Settings are the user's choices.
type Settings struct {
	// Bytes is how much is kept at most, all included; zero is nothing at all.
	Bytes int
	// Share has all clients share what is kept.
	Share bool
	// Idle is for how long an answer is kept that nobody asks for.
	Idle time.Duration
}

// DefaultSettings is 8 MiB, some two hundred streamed answers of 300 tokens or
// a thousand embeddings: what is resident may grow by twice that.
func DefaultSettings() Settings { return Settings{Bytes: 8 << 20, Idle: time.Hour} }

// Stats is what the cache has and has done.
type Stats struct {
	Bytes, Limit, Entries int
	Share                 bool
	// Hits were answered from here, Joined by another job that asked for the
	// same at that time, and Misses by a backend although they might have been.
	Hits, Joined, Misses int64
	// Evictions made room, and Expiries were not asked for any more.
	Evictions, Expiries int64
}

// Place is where an answer is from.
type Place struct {
	Model  string // as the client spells it
	Digest string
	Class  power.DeviceClass
}

// Answer is what a backend answered. It is not changed once it is kept.
type Answer struct {
	Head job.Head
	// Data is the backend's own bytes, or for a job without an Original the
	// text. From Last on they go with the last chunk.
	Data    []byte
	Last    int
	Vectors [][]float32
	// Usage is of the tokens alone.
	Usage job.Usage
	// Backend is whose answer it is, and Made when it was complete.
	Backend string
	Made    time.Time
}

// name is what an answer is kept by.
type name struct {
	Key
	Place
}

// overhead is what an entry takes beside its data, in bytes.
const overhead = 512

// size returns how much memory the answer takes.
func (n name) size(a *Answer) int {
	size := overhead + cap(a.Data) + len(n.client) + len(n.Model) + len(n.Digest)
	for _, v := range a.Vectors {
		size += 24 + 4*cap(v)
	}
	return size
}

type entry struct {
	name   name
	answer *Answer
	size   int
	used   time.Time
}

// Cache is the answers that are kept. The zero value keeps none; a nil one
// never does.
type Cache struct {
	mu       sync.Mutex
	settings Settings
	entries  map[name]*list.Element
	// order has the entries, the one used last in front.
	order list.List
	bytes int
	stats Stats
}

// New returns an empty cache.
func New(s Settings) *Cache {
	c := &Cache{entries: make(map[name]*list.Element)}
	c.Configure(s)
	return c
}

// Configure replaces the settings. Where clients cease or begin to share, all is
// forgotten.
func (c *Cache) Configure(s Settings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.Share != c.settings.Share {
		c.clearLocked()
	}
	c.settings = s
	c.shrinkLocked(time.Now())
}

// Largest is how large an answer may be to be kept, in bytes: an eighth of all,
// so that none takes the place of all others.
func (c *Cache) Largest() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.settings.Bytes / 8
}

// Find returns the answer to a request from one of the places, the first first.
func (c *Cache) Find(k Key, places []Place) (*Answer, Place, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.expireLocked(now)
	for _, p := range places {
		if e := c.entries[name{k, p}]; e != nil {
			c.order.MoveToFront(e)
			found := e.Value.(*entry)
			found.used = now
			c.stats.Hits++
			return found.answer, p, true
		}
	}
	return nil, Place{}, false
}

// Keep keeps an answer, if it is not too large, in the place of what was
// answered before.
func (c *Cache) Keep(k Key, p Place, a *Answer) {
	n := name{k, p}
	size := n.size(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	if size > c.settings.Bytes/8 {
		return
	}
	if old := c.entries[n]; old != nil {
		c.removeLocked(old)
	}
	now := time.Now()
	c.entries[n] = c.order.PushFront(&entry{name: n, answer: a, size: size, used: now})
	c.bytes += size
	c.shrinkLocked(now)
}

// Missed counts a request to which there was no answer, and Joined one that
// another job answers.
func (c *Cache) Missed() { c.count(&c.stats.Misses) }

// Joined is told of with Missed.
func (c *Cache) Joined() { c.count(&c.stats.Joined) }

func (c *Cache) count(n *int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*n++
}

// Only forgets what is from other weights than those.
func (c *Cache) Only(digests map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, e := range c.entries {
		if !digests[n.Digest] {
			c.removeLocked(e)
		}
	}
}

// Clear forgets all answers, and returns how many there were.
func (c *Cache) Clear() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.entries)
	c.clearLocked()
	return n
}

// Stats returns what the cache has and has done.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expireLocked(time.Now())
	s := c.stats
	s.Bytes, s.Limit, s.Entries, s.Share = c.bytes, c.settings.Bytes, len(c.entries), c.settings.Share
	return s
}

func (c *Cache) clearLocked() {
	c.entries = make(map[name]*list.Element)
	c.order.Init()
	c.bytes = 0
}

// shrinkLocked makes what is kept fit the settings.
func (c *Cache) shrinkLocked(now time.Time) {
	c.expireLocked(now)
	for c.bytes > c.settings.Bytes {
		c.removeLocked(c.order.Back())
		c.stats.Evictions++
	}
}

// expireLocked forgets what nobody has asked for in a while.
func (c *Cache) expireLocked(now time.Time) {
	for e := c.order.Back(); e != nil && now.Sub(e.Value.(*entry).used) > c.settings.Idle; e = c.order.Back() {
		c.removeLocked(e)
		c.stats.Expiries++
	}
}

func (c *Cache) removeLocked(e *list.Element) {
	gone := c.order.Remove(e).(*entry)
	delete(c.entries, gone.name)
	c.bytes -= gone.size
}
