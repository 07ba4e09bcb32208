package job_test

import (
	"net/netip"
	"testing"

	"github.com/joulemux/joulemux/daemon/job"
)

func TestWhichAddressesAreOfNobodyElse(t *testing.T) {
	tests := map[string]bool{
		"127.0.0.1": true, "::1": true, "10.1.2.3": true, "172.16.0.1": true, "192.168.178.20": true, "169.254.1.1": true,
		"100.101.102.103": true, "fd00::1": true, "fe80::1": true, "::ffff:192.168.0.1": true,
		"8.8.8.8": false, "172.32.0.1": false, "100.128.0.1": false, "2001:db8::1": false, "::ffff:8.8.8.8": false, "0.0.0.0": false,
	}
	for text, want := range tests {
		if got := job.Private(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is private: %v", text, got)
		}
	}
}

func TestAPriceIsOfTokens(t *testing.T) {
	vendor := job.Price{Input: 0.15, Output: 0.60, Currency: "EUR"}
	tests := []struct {
		name  string
		price job.Price
		usage job.Usage
		want  job.Money
	}{
		{"both kinds of tokens", vendor, job.Usage{PromptTokens: 1000, Tokens: 200}, job.Money{Nano: 270_000, Currency: "EUR"}},
		{"a prompt alone, as of an embedding", vendor, job.Usage{PromptTokens: 7}, job.Money{Nano: 1050, Currency: "EUR"}},
		{"what was not counted is no zero", vendor, job.Usage{}, job.Money{Currency: "EUR", Unknown: true}},
		{"for nothing", job.Price{Currency: "EUR"}, job.Usage{PromptTokens: 1000}, job.Money{Currency: "EUR"}},
		{"without a price", job.Price{}, job.Usage{PromptTokens: 1000, Tokens: 200}, job.Money{}},
	}
	for _, tt := range tests {
		if got := tt.price.Of(tt.usage); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
	if text := (job.Money{Nano: 270_000, Currency: "EUR"}).String(); text != "0.00027 EUR" {
		t.Errorf("it is written %q", text)
	}
}
