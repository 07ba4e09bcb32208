package job_test

import (
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/job"
)

func TestPromptsThatBeginAlike(t *testing.T) {
	long := strings.Repeat("All work and no play. ", 200)
	first := job.PromptOf("user", long)
	for _, c := range []struct {
		what string
		p    job.Prompt
		want bool // most of the first is shared
	}{
		{"the same again", job.PromptOf("user", long), true},
		{"the next turn", job.PromptOf("user", long, "assistant", "Indeed.", "user", "Go on."), true},
		{"an empty text before it", job.PromptOf("", "user", long), true},
		{"another beginning", job.PromptOf("user", "No: "+long), false},
		{"the same text in other pieces", job.PromptOf("us", "er"+long), false},
		{"nothing", job.PromptOf(), false},
	} {
		shared := first.Shared(c.p)
		if got := shared > len(long)/2; got != c.want || shared > len(long)+4 || shared != c.p.Shared(first) {
			t.Errorf("%s: %d of %d bytes are shared", c.what, shared, len(long))
		}
	}
	if len(job.PromptOf(strings.Repeat("x", 10<<20))) > 1000 {
		t.Error("huge prompts have huge fingerprints")
	}
}
