"""What is shown: charts, HTML pages, and the reports of data sets, runs, studies and searches."""
