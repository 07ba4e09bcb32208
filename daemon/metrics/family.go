package metrics

import (
	"strconv"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// counters are a family of counters of whole things, one for each K.
type counters[K key[K]] struct {
	name, help string
	labels     []string
	// format writes what was counted; nil writes it as it is.
	format func(dst []byte, n int64) []byte

	at   map[K]int
	list []count
}

// count is one series: what its line begins with, and its value.
type count struct {
	line string
	n    int64
}

// add adds n, which is not negative.
func (c *counters[K]) add(k K, n int64) {
	i, known := c.at[k]
	if !known {
		i = c.make(k)
	}
	c.list[i].n += n
}

// make returns the place of a series that is new, or is not known by k itself.
func (c *counters[K]) make(k K) int {
	if c.at == nil {
		c.at = make(map[K]int)
	}
	return find(c.at, k, func(k K) int {
		c.list = append(c.list, count{line: line(c.name, c.labels, k.values())})
		return len(c.list) - 1
	})
}

// find returns the place of k, which no map has as it is: of itself in words of
// its own, of a new one, or of the one that stands for it.
func find[K key[K]](at map[K]int, k K, add func(K) int) int {
	k = k.own()
	i, known := at[k]
	if !known && len(at) >= most {
		k = k.rest()
		i, known = at[k]
	}
	if !known {
		i = add(k)
		at[k] = i
	}
	return i
}

// write appends the family.
func (c *counters[K]) write(dst []byte, openMetrics bool) []byte {
	if len(c.list) == 0 {
		return dst
	}
	dst = head(dst, c.name, c.help, Counter, openMetrics)
	for i := range c.list {
		s := &c.list[i]
		dst = append(dst, s.line...)
		if c.format != nil {
			dst = c.format(dst, s.n)
		} else {
			dst = strconv.AppendInt(dst, s.n, 10)
		}
		dst = append(dst, '\n')
	}
	return dst
}

// joules writes microjoules as callers may see them, to the tenth of a joule:
// see power.Cost.Told.
func joules(dst []byte, n int64) []byte {
	tenths := int64(power.Energy(n).Told() / (power.Joule / 10))
	dst = strconv.AppendInt(dst, tenths/10, 10)
	if tenths%10 != 0 {
		dst = append(dst, '.', byte('0'+tenths%10))
	}
	return dst
}

// money writes billionths of a currency's unit.
func money(dst []byte, n int64) []byte {
	return strconv.AppendFloat(dst, job.Money{Nano: n}.Amount(), 'f', -1, 64)
}

// histograms are a family of histograms of times, one for each K.
type histograms[K key[K]] struct {
	name, help string
	labels     []string

	at   map[K]int
	list []*distribution
}

// distribution is one histogram: how many times were within each of the bounds and
// not within the one before, the last being those beyond all.
type distribution struct {
	buckets [len(bounds) + 1]int64
	sum     time.Duration
	lines   [len(bounds) + 3]string // of the buckets, the sum and the count
}

// add adds a time.
func (h *histograms[K]) add(k K, d time.Duration) {
	d = max(d, 0)
	i, known := h.at[k]
	if !known {
		i = h.make(k)
	}
	one := h.list[i]
	within := 0
	for within < len(bounds) && d > bounds[within] {
		within++
	}
	one.buckets[within]++
	one.sum += d
}

func (h *histograms[K]) make(k K) int {
	if h.at == nil {
		h.at = make(map[K]int)
	}
	return find(h.at, k, func(k K) int {
		d, values := new(distribution), k.values()
		labels := append(append([]string(nil), h.labels...), "le")
		for i, bound := range bounds {
			d.lines[i] = line(h.name+"_bucket", labels, append(values, string(number(nil, bound.Seconds()))))
		}
		d.lines[len(bounds)] = line(h.name+"_bucket", labels, append(values, "+Inf"))
		d.lines[len(bounds)+1] = line(h.name+"_sum", h.labels, values)
		d.lines[len(bounds)+2] = line(h.name+"_count", h.labels, values)
		h.list = append(h.list, d)
		return len(h.list) - 1
	})
}

// write appends the family.
func (h *histograms[K]) write(dst []byte, openMetrics bool) []byte {
	if len(h.list) == 0 {
		return dst
	}
	dst = head(dst, h.name, h.help, "histogram", openMetrics)
	for _, d := range h.list {
		all := int64(0)
		for i, n := range d.buckets {
			all += n
			dst = append(strconv.AppendInt(append(dst, d.lines[i]...), all, 10), '\n')
		}
		dst = append(number(append(dst, d.lines[len(bounds)+1]...), d.sum.Seconds()), '\n')
		dst = append(strconv.AppendInt(append(dst, d.lines[len(bounds)+2]...), all, 10), '\n')
	}
	return dst
}
