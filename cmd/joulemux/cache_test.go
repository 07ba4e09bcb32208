package main

import (
	"strings"
	"testing"
)

const cacheLine = `{"entries":3,"bytes":20480,"max_bytes":8388608,"shared":false,"hits":7,"joined":2,"misses":4,"evictions":1,"expiries":5}`

func TestCacheIsShown(t *testing.T) {
	r := replay(t, answers{"GET cache": says(cacheLine), "DELETE cache": says(cacheLine)})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"cache"}, "kept    3 answers, 20 KiB of 8192 KiB\nshared  no, each client has its own\ngiven   7 again, 2 at the same time, 4 had to be made\ngone    1 to make room, 5 that nobody asked for\n"},
		{[]string{"cache", "clear"}, "forgotten: 3 answers, 20 KiB\n"},
		{[]string{"cache", "--json"}, cacheLine + "\n"},
	} {
		out, _, code := run(t, r.socket, nil, c.args...)
		if out != c.want || code != 0 {
			t.Errorf("%s: exit %d\n%s", strings.Join(c.args, " "), code, out)
		}
	}
}
