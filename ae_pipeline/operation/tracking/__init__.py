"""MLflow: what came out of the stages, and the codecs as model versions.

workspace        what the stages left, read and checked
dvc_lock         whether files are those that dvc.lock records
publish          exactly one run for what is in the workspace
pyfunc_model     a codec as MLflow's model: MLflow runs this file
connection       address, client and pages; the codec of a model version
database         one process at a time works with a database
location         addresses of a store that was moved or copied, put right
failures         what MLflow's errors mean, and what helps
orphans          runs that a dead process left
"""
