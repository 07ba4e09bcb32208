package daemon

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/cache"
	"github.com/joulemux/joulemux/daemon/config"
	"github.com/joulemux/joulemux/daemon/residency"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

func TestNothingChosenIsTheDefault(t *testing.T) {
	c := config.Default()
	if got := rules(c); !reflect.DeepEqual(got, route.DefaultRules()) {
		t.Errorf("routing: %+v", got)
	}
	if got := kept(c); !reflect.DeepEqual(got, residency.DefaultRules()) {
		t.Errorf("residency: %+v", got)
	}
}

func TestTheREADMETellsTheDefaults(t *testing.T) {
	c, err := config.Parse(example(t, "routing:"))
	if err != nil || len(c.Notes) > 0 {
		t.Fatal(err, c.Notes)
	}
	if got := rules(c); !reflect.DeepEqual(got, route.DefaultRules()) {
		t.Errorf("routing:\n got %+v\nwant %+v", got, route.DefaultRules())
	}
	if got := kept(c); !reflect.DeepEqual(got, residency.DefaultRules()) {
		t.Errorf("residency:\n got %+v\nwant %+v", got, residency.DefaultRules())
	}
	if c.Policy != power.DefaultPolicy() {
		t.Errorf("thresholds:\n got %+v\nwant %+v", c.Policy, power.DefaultPolicy())
	}
	if c, err = config.Parse(example(t, "cache:")); err != nil || !reflect.DeepEqual(cache.Settings(c.Cache), cache.DefaultSettings()) {
		t.Errorf("the cache: got %+v, %v", c.Cache, err)
	}
}

func TestTheREADMEsExamplesAreInOrder(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	// Whole ones are in blocks of their own, and others amid the text.
	examples := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```|`([a-z]+: \\{[^`]+)`").FindAllStringSubmatch(string(readme), -1)
	for _, e := range examples {
		text := e[1] + e[2]
		if strings.HasPrefix(text, "scrape_configs:") || strings.HasPrefix(text, "characteristics:") {
			continue // of Prometheus, and of a backend
		}
		if _, err := config.Parse([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if len(examples) < 10 {
		t.Errorf("there are %d examples", len(examples))
	}
}

// example returns the README's example of a configuration that begins so.
func example(t *testing.T, begin string) []byte {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(readme), "```yaml\n"+begin)
	text, _, closed := strings.Cut(text, "```")
	if !found || !closed {
		t.Fatalf("there is no example that begins with %q", begin)
	}
	return []byte(begin + text)
}

func TestWhatIsChosenIsInForce(t *testing.T) {
	c, err := config.Parse([]byte(`
backends: [{id: a, endpoint: "http://a:1", hardware: dgpu, characteristics: {hold_watts: 6}}]
routing:
  deadlines: {chat: {after_seconds: 20}, completion: {per_token_seconds: 0}, background: {after_seconds: 0, per_token_seconds: 0}}
  may_miss: 0.1
  in_time_joules: 50
  curiosity: false
tiers:
  battery: {second_worth_watts: 20, keep_alive_seconds: 20, keep_alive_free_seconds: 600}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := route.DefaultRules()
	want.Chat.After, want.Completion.PerToken, want.Background = 20*time.Second, 0, route.Due{}
	want.MayMiss, want.InTime, want.Curiosity = 0.1, 50*power.Joule, 0
	want.Tiers[power.Battery] = route.Rule{Worth: 20 * power.Watt, DiscreteGPU: route.InTime, Background: route.Run}
	if got := rules(c); !reflect.DeepEqual(got, want) {
		t.Errorf("routing:\n got %+v\nwant %+v", got, want)
	}
	stays := residency.DefaultRules()
	stays.Tiers[power.Battery] = residency.Rule{Free: 10 * time.Minute, Costly: 20 * time.Second}
	if got := kept(c); !reflect.DeepEqual(got, stays) {
		t.Errorf("residency:\n got %+v\nwant %+v", got, stays)
	}
	if got := specs(c)[0].Profile.HoldDraw; got != 6*power.Watt {
		t.Errorf("holding a model takes %v", got)
	}
}

// The file has words for rules that are another package's.
func TestEveryRuleHasItsWord(t *testing.T) {
	for _, rule := range []route.DiscreteGPU{route.Always, route.InTime, route.LatencyCritical, route.Named, route.Never} {
		c, err := config.Parse([]byte("tiers: {low: {dgpu: " + string(rule) + "}}"))
		if got := rules(c).Tiers[power.Low].DiscreteGPU; err != nil || got != rule {
			t.Errorf("%s: got %s, %v", rule, got, err)
		}
	}
	for _, rule := range []route.Background{route.Run, route.Wait, route.Refuse} {
		c, err := config.Parse([]byte("tiers: {saver: {background: " + string(rule) + "}}"))
		if got := rules(c).Tiers[power.Saver].Background; err != nil || got != rule {
			t.Errorf("%s: got %s, %v", rule, got, err)
		}
	}
}
