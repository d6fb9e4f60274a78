// What the graph has before: power sources and the feeders that they supply.
UNWIND range(1, 3000) AS n
CREATE (p:PowerSource {id: n, name: 'source ' + n, rating: n % 50})
CREATE (f:Feeder {id: n, name: 'feeder ' + n, rating: n % 20})
CREATE (p)-[:SUPPLIES]->(f);
