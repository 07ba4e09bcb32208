package metrics

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// head appends what comes before the series of a family. In OpenMetrics the
// suffix "_total" is the series' and not the family's.
func head(dst []byte, name, help string, t Type, openMetrics bool) []byte {
	if openMetrics && t == Counter {
		name = strings.TrimSuffix(name, "_total")
	}
	for _, word := range []string{"# HELP ", name, " ", help, "\n# TYPE ", name, " ", string(t), "\n"} {
		dst = append(dst, word...)
	}
	return dst
}

// line returns what the line of a series begins with: all but the value.
func line(name string, labels, values []string) string {
	return string(appendLine(nil, name, labels, values))
}

// appendLine appends the same.
func appendLine(dst []byte, name string, labels, values []string) []byte {
	dst = append(dst, name...)
	for i, label := range labels {
		if i == 0 {
			dst = append(dst, '{')
		} else {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, label...), `="`...), escaper.Replace(values[i])...)
		dst = append(dst, '"')
	}
	if len(labels) > 0 {
		dst = append(dst, '}')
	}
	return append(dst, ' ')
}

var escaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// number appends a value. Whole ones have a ".0", which OpenMetrics wants of the
// ends of buckets and allows elsewhere: a series has the same name in both formats.
func number(dst []byte, v float64) []byte {
	switch {
	case math.IsInf(v, 1):
		return append(dst, "+Inf"...)
	case math.IsInf(v, -1):
		return append(dst, "-Inf"...)
	case math.IsNaN(v):
		return append(dst, "NaN"...)
	}
	before := len(dst)
	dst = strconv.AppendFloat(dst, v, 'g', -1, 64)
	if !bytes.ContainsAny(dst[before:], ".e") {
		dst = append(dst, ".0"...)
	}
	return dst
}
