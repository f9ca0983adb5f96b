package engine

import (
	"reflect"
	"testing"

	"github.com/sidemirror/sidemirror/internal/secret"
)

func TestSettingsOfSeveralEnginesAreMerged(t *testing.T) {
	list := []Adopted{
		{Registry: "b", From: "1", CA: []string{"x"}, SkipVerify: true, Contents: map[string]secret.Secret{"x": secret.New("x")}},
		{Registry: "a", From: "1", PlainHTTP: true},
		{Registry: "b", From: "2", CA: []string{"x", "y"}, Clients: []KeyPair{{"c", "k"}}, Contents: map[string]secret.Secret{"y": secret.New("y")}},
		{Registry: "a", From: "1", PlainHTTP: true},
		{Registry: "b", From: "2", CA: []string{"copy of x"}, Contents: map[string]secret.Secret{"copy of x": secret.New("x")}},
	}
	got := MergeAdopted(list)
	for i := range got {
		if len(got[i].Contents) != map[string]int{"a": 0, "b": 3}[got[i].Registry] {
			t.Errorf("contents of %s: %d", got[i].Registry, len(got[i].Contents))
		}
		got[i].Contents = nil
	}
	want := []Adopted{
		{Registry: "a", From: "1", PlainHTTP: true},
		{Registry: "b", From: "1, 2", CA: []string{"x", "y"}, Clients: []KeyPair{{"c", "k"}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if len(list[0].CA) != 1 || len(list[0].Contents) != 1 {
		t.Error("the engines' own lists changed")
	}
}
