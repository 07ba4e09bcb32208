package job_test

import (
	"math"
	"testing"

	"github.com/joulemux/joulemux/daemon/job"
)

func TestLineIsForPeopleToRead(t *testing.T) {
	if got, want := string(job.Line(map[string]string{"text": "a < b && é\n"})), `{"text":"a < b && é\n"}`+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLineThatCannotBeWrittenIsAnError(t *testing.T) {
	if got, want := string(job.Line(math.NaN())), `{"error":"the answer cannot be encoded"}`+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
