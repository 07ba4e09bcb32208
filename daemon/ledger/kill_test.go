package ledger

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/power"
)

// writeForEver is a daemon with a job every now and then. It says how many
// jobs are on the disk, each time that it knows.
func writeForEver(folder string) {
	l := New(folder, forever(), slog.New(slog.NewTextHandler(os.Stderr, nil)))
	go l.Run(context.Background()) //nolint:errcheck // it is killed
	for n := 0; ; {
		for range 1 + rand.IntN(5) {
			l.Record(but(func(e *Entry) {
				e.ID = fmt.Sprintf("%d-%d", os.Getpid(), n)
				e.Client = fmt.Sprint("client-", rand.IntN(3))
				e.Cost.Energy = power.Energy(rand.IntN(1e6))
			}))
			l.Tail(fmt.Sprintf("%d-%d", os.Getpid(), max(0, n-3)), power.Energy(rand.IntN(1e6)))
			n++
		}
		if err := l.Flush(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(n)
	}
}

// killed runs such a daemon, kills it after a while, and returns its process
// id and how many jobs it said were on the disk.
func killed(t *testing.T, folder string, after time.Duration, started bool) (pid, jobs int) {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "LEDGER_WRITE="+folder)
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if started {
		jobs = lastOf(t, lines, true)
	}
	<-time.After(after) // not for something: at any instant
	if err := cmd.Process.Kill(); err != nil {
		t.Errorf("it ended by itself: %v\n%s", err, &stderr)
	}
	jobs = max(jobs, lastOf(t, lines, false))
	_ = cmd.Wait()
	if stderr.Len() > 0 {
		t.Errorf("it said: %s", &stderr)
	}
	return cmd.Process.Pid, jobs
}

// lastOf returns the number on the first or the last whole line.
func lastOf(t *testing.T, lines *bufio.Reader, first bool) (last int) {
	t.Helper()
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF { //nolint:errorlint // as bufio documents it
			return last
		}
		if err != nil {
			t.Fatal(err)
		}
		if last, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
			t.Fatal(err)
		}
		if first {
			return last
		}
	}
}

func TestAKilledDaemonLosesNothingThatWasWritten(t *testing.T) {
	const rounds = 40
	folder, all := t.TempDir(), 0
	for i := range rounds {
		// Half of them are killed early, while the file is made or the log of
		// the one before taken in, the others in the midst of writing.
		started := i%2 == 1
		if i%8 == 0 {
			folder = t.TempDir()
		}
		pid, jobs := killed(t, folder, rand.N(60*time.Millisecond), started)
		all += jobs
		mustBeSound(t, folder, pid, jobs)
		if t.Failed() {
			t.Fatalf("after round %d", i)
		}
	}
	t.Logf("%d jobs were reported written in %d rounds", all, rounds)
	if all < rounds/2 { // one in each that was started, on however slow a disk
		t.Errorf("only %d jobs were written: nothing was tried", all)
	}
}

// differing counts the sums that are not those of the jobs.
const (
	differing = "SELECT (SELECT count(*) FROM (" + sumsOfJobs + " EXCEPT SELECT * FROM account)) + " +
		"(SELECT count(*) FROM (SELECT * FROM account EXCEPT " + sumsOfJobs + "))"

	sumsOfJobs = `SELECT day, backend, model, client, quality, count(*), sum(failed <> ''), sum(prompt_tokens), sum(tokens),
		sum(energy), sum(gross), sum(load), sum(tail), sum(radio) FROM job GROUP BY 1, 2, 3, 4, 5`
)

// mustBeSound checks a file that a killed process left, with its eyes closed
// to what else is there.
func mustBeSound(t *testing.T, folder string, pid, jobs int) {
	t.Helper()
	// By the ledger first, as the next daemon would.
	l := run(t, folder, forever())
	if err := l.Open(t.Context()); err != nil {
		t.Error(err)
	}
	l.stop()
	l.mustHaveSaid(t, 0, 0)
	db := openRaw(t, folder)
	defer db.Close()
	if got := query(t, db, "PRAGMA integrity_check"); got != "ok" {
		t.Errorf("the file is damaged: %s", got)
	}
	last := fmt.Sprintf("%d-%d", pid, jobs-1)
	written := fmt.Sprintf("SELECT count(*) FROM job WHERE id LIKE '%d-%%' AND n <= (SELECT max(n) FROM job WHERE id = '%s')", pid, last)
	if got := query(t, db, written); jobs > 0 && got != fmt.Sprint(jobs) {
		t.Errorf("%s jobs are there, and %d were reported as written", got, jobs)
	}
	if got := query(t, db, differing); got != "0" {
		t.Errorf("%s sums are not those of the jobs", got)
	}
}
