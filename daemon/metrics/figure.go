package metrics

// Type says how the values of a family move.
type Type string

// The types.
const (
	Counter Type = "counter" // only grows, and its name ends in "_total"
	Gauge   Type = "gauge"
)

// Figure is a family whose values another part keeps.
type Figure struct {
	// Name is that of the family, in Prometheus' base units.
	Name string
	// Help says on one line what it is of.
	Help   string
	Type   Type
	Labels []string
	// Read tells each series: its value, and the values of the labels. What is
	// not known it does not tell. It is called by scrapes, several at once, and
	// must neither wait nor wake anybody.
	Read func(tell Tell)
}

// Tell takes a series.
type Tell func(value float64, labels ...string)

// One returns the Read of a family that has one series, unless that is not
// known.
func One(value func() (v float64, known bool)) func(Tell) {
	return func(tell Tell) {
		if v, known := value(); known {
			tell(v)
		}
	}
}

// Truth returns 1 for what is so, and 0 for what is not.
func Truth(so bool) float64 {
	if so {
		return 1
	}
	return 0
}

// write appends the family, if it has series.
func (f *Figure) write(dst []byte, openMetrics bool) []byte {
	begun, words := false, make([]string, 0, len(f.Labels))
	f.Read(func(value float64, labels ...string) {
		if !begun {
			dst, begun = head(dst, f.Name, f.Help, f.Type, openMetrics), true
		}
		words = words[:0]
		for _, label := range labels {
			words = append(words, clip(label))
		}
		dst = appendLine(dst, f.Name, f.Labels, words)
		dst = append(number(dst, value), '\n')
	})
	return dst
}
