package daemontest_test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/packaging/rig"
)

// passes is what Ollama's suite counts against a canned server: every test of
// the API, and the one of the tool calls whose model such a server has. Those
// of tool calls with other models fail, because they cannot be pulled.
const passes = 19

func TestOllamasSuitePassesThroughJoulemuxAsItDoesDirectly(t *testing.T) {
	canned := daemontest.Serve(t, daemontest.CannedOllama())
	d := daemontest.Start(t, daemontest.Options{
		Config: "backends: [{id: ollama-cpu, hardware: cpu, slots: 64, endpoint: \"http://" + canned + "\"}]\n",
	})
	direct, through := SuitePasses(t, canned), SuitePasses(t, d.Addr)
	t.Logf("%d tests pass directly, %d through joulemux", direct, through)
	if direct != passes || through != passes {
		t.Errorf("%d tests of the suite pass directly and %d through joulemux, want %d", direct, through, passes)
	}
}

// translatedPasses is how many of them do where only OpenAI's API is behind. The
// others want what nobody says in it: the license, template and size of a model,
// how long it took to load, and an answer as the numbers of its tokens.
const translatedPasses = 11

func TestOllamasSuiteBeforeAServerOfOpenAIsAPI(t *testing.T) {
	canned := daemontest.Serve(t, daemontest.CannedOpenAI())
	d := daemontest.Start(t, daemontest.Options{
		Config: "backends: [{id: llama-server, hardware: cpu, slots: 64, type: openai, endpoint: \"http://" + canned + "\"}]\n",
	})
	if got := SuitePasses(t, d.Addr); got != translatedPasses {
		t.Errorf("%d tests of the suite pass, want %d", got, translatedPasses)
	}
}

// SuitePasses runs Ollama's integration suite against the server at addr, and
// returns how many tests and subtests pass. Its exit status says less: it
// makes no difference between one failure and twenty.
func SuitePasses(t *testing.T, addr string) int {
	t.Helper()
	suite, err := rig.OllamaSuite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(suite, "-test.v", "-test.count", "1", "-test.run",
		"TestAPI|TestBlueSky|TestContext|TestConcurrent|TestChatWithHistory|TestGenerateWithHistory")
	cmd.Dir = filepath.Dir(suite)
	cmd.Env = []string{"OLLAMA_TEST_EXISTING=1", "OLLAMA_HOST=" + addr, "HOME=" + t.TempDir()}
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := rig.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	n := len(regexp.MustCompile(`(?m)^\s*--- PASS: `).FindAll(out.Bytes(), -1))
	if n != passes {
		failed := regexp.MustCompile(`(?m)^\s*--- (FAIL|SKIP): .*\n(.*_test\.go.*\n)*`)
		t.Logf("against %s:\n%s", addr, bytes.Join(failed.FindAll(out.Bytes(), -1), nil))
	}
	return n
}
