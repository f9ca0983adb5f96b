package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

var (
	sharedAskedDesc   = prometheus.NewDesc(namespace+"_shared_store_asked", "1 if the shared store is asked, 0 while it is not because it has failed.", nil, nil)
	sharedBlobsDesc   = prometheus.NewDesc(namespace+"_shared_store_blobs_total", "Blobs that the shared store was asked for (hit: it had them; miss; failed: it did not respond as it should; wrong: without their digest).", []string{"result"}, nil)
	sharedUploadsDesc = prometheus.NewDesc(namespace+"_shared_store_uploads_total", "Blobs for the shared store (stored; present: it had them; private: not everyone may read them; dropped: no room in the queue or the store).", []string{"result"}, nil)
	sharedBytesDesc   = prometheus.NewDesc(namespace+"_shared_store_uploaded_bytes_total", "Bytes of blobs that were uploaded to the shared store.", nil, nil)
	sharedWaitsDesc   = prometheus.NewDesc(namespace+"_shared_store_waits_total", "Blobs for which this host waited while another one fetched them.", nil, nil)
)

func describeShared(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sharedAskedDesc, sharedBlobsDesc, sharedUploadsDesc, sharedBytesDesc, sharedWaitsDesc} {
		descs <- d
	}
}

// collectShared collects what happened between this host and the shared store. The counters begin anew
// with each configuration.
func collectShared(metrics chan<- prometheus.Metric, s observe.Shared) {
	asked := 0.0
	if s.Asked {
		asked = 1
	}
	metrics <- prometheus.MustNewConstMetric(sharedAskedDesc, prometheus.GaugeValue, asked)
	count := func(desc *prometheus.Desc, n int64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
	}
	count(sharedBlobsDesc, s.Hits, "hit")
	count(sharedBlobsDesc, s.Misses, "miss")
	count(sharedBlobsDesc, s.Failed, "failed")
	count(sharedBlobsDesc, s.Wrong, "wrong")
	count(sharedUploadsDesc, s.Uploaded, "stored")
	count(sharedUploadsDesc, s.Present, "present")
	count(sharedUploadsDesc, s.Private, "private")
	count(sharedUploadsDesc, s.Dropped, "dropped")
	count(sharedBytesDesc, s.UploadedBytes)
	count(sharedWaitsDesc, s.Waits)
}
